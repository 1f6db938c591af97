//! What is settled when the program is built: its time, and the published schemas.

mod object;
mod openapi;
// The table of what is served, as the server itself has it.
#[allow(dead_code, reason = "the build needs less of it than the server")]
#[path = "../src/apiserver/discovery/served.rs"]
mod served;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    build_time();
    for used in [
        "build",
        "src/apiserver/discovery/served.rs",
        "src/object/key.rs",
        "src/object/schema.rs",
    ] {
        println!("cargo::rerun-if-changed={used}");
    }
    let directory = std::env::var_os("OUT_DIR").expect("cargo sets it");
    openapi::write(&PathBuf::from(directory));
}

/// The floor for clocks that start in 1970: SOURCE_DATE_EPOCH (reproducible-builds.org) if it is
/// set, else now.
fn build_time() {
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
