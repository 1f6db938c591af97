//! [`bad_link`] as a program, for scripts: `bad-link ADDRESS GOAL` stands at ADDRESS before GOAL, and
//! each line of its input says how bad it is from now on. Ends with its input.

use std::time::Duration;

#[allow(dead_code, reason = "tests use the rest")]
#[path = "bad_link.rs"]
mod bad_link;
use bad_link::{BadLink, Mode, Way};

/// Of an answer: past the handshake, in the middle of a list.
const PIECE: u64 = 4_000;

fn mode(line: &str) -> Mode {
    match line {
        "pass" => Mode::Pass,
        // A satellite.
        "slow" => Mode::Slow {
            delay: Duration::from_secs(1),
            bytes_per_s: 10_000,
        },
        "deaf" => Mode::Mute(Way::ToClient),
        "mute" => Mode::Mute(Way::ToServer),
        "half-open" => Mode::HalfOpen,
        "reset" => Mode::Reset { after: PIECE },
        "truncate" => Mode::Truncate { after: PIECE },
        "dropped" => Mode::ShortLived(Duration::from_secs(1)),
        other => panic!("unknown: {other}"),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(goal)) = (arguments.next(), arguments.next()) else {
        panic!("bad-link ADDRESS GOAL");
    };
    let link = BadLink::at(&address, &goal);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        link.set(mode(&line));
        println!("{line}, after {:?}", link.carried());
    }
}
