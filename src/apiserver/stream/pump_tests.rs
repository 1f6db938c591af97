//! What a command has said is told to its end.

use std::io::Write;

use jiff::Timestamp;

use super::*;
use crate::world::{BootTime, LocalFuture};

/// Every sleep is over at once.
struct Hasty;

impl Clock for Hasty {
    fn now(&self) -> BootTime {
        BootTime::default()
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn sleep_until(&self, _: BootTime) -> LocalFuture<'static, ()> {
        Box::pin(future::yield_now())
    }
}

/// Tells what a pipe holds whose writer never goes, of a command that has ended. Returns how much was heard
/// by a client that takes its time.
fn heard_of(bytes: usize, more: usize) -> usize {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&vec![b'x'; bytes]).expect("room");
    let from = open(Some(reader.into())).expect("a descriptor");
    let (told, heard) = async_channel::bounded(1);
    let (end, exit) = async_channel::bounded(1);
    end.try_send(ExecExit::Code(0)).expect("room");
    let idle = Idle::new(Rc::new(Hasty), Duration::from_secs(60));
    let (keep, enough) = async_channel::bounded(1);
    let telling = async {
        let drained = copy_out(from, &told, &idle, &enough, Told::Stdout);
        exit_after(drained, keep, &exit, &Hasty).await;
        told.close();
    };
    let hearing = async {
        let mut sum = 0;
        while let Ok(Told::Stdout(bytes)) = heard.recv().await {
            sum += bytes.len();
            // Whatever was left behind goes on.
            let _reader_may_be_gone = writer.write_all(&vec![b'y'; more]);
            for _ in 0..10 {
                future::yield_now().await;
            }
        }
        sum
    };
    async_io::block_on(future::zip(telling, hearing)).1
}

#[test]
fn what_was_said_before_the_end_is_told_however_slow_the_client_is() {
    for bytes in [0, 1, 60_000, PIPE_BYTES] {
        assert_eq!(heard_of(bytes, 0), bytes);
    }
}

#[test]
fn what_a_command_leaves_behind_does_not_hold_its_end_up() {
    let heard = heard_of(CHUNK_BYTES, CHUNK_BYTES);
    assert!(heard <= PIPE_BYTES + 2 * CHUNK_BYTES, "{heard}");
}
