//! The time of the build, as the floor for clocks that start in 1970: SOURCE_DATE_EPOCH
//! (reproducible-builds.org) if it is set, else now.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=Cargo.lock");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok();
    #[allow(clippy::disallowed_methods, reason = "no node runs here")]
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    };
    let seconds = given.and_then(|text| text.trim().parse().ok());
    println!(
        "cargo::rustc-env=LOWTIDE_BUILD_TIME={}",
        seconds.unwrap_or_else(now)
    );
}
