//! What is settled when the program is built: its time, the published schemas, and texts that are packed.

mod completions;
mod object;
mod openapi;
// The table of what is served, as the server itself has it.
#[allow(dead_code, reason = "the build needs less of it than the server")]
#[path = "../src/apiserver/discovery/served.rs"]
mod served;

use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::{Compression, GzBuilder};

const PROTOBUF: &str = "src/object/protobuf/table.txt";

fn main() {
    build_time();
    for used in [
        "build",
        "packages/completions",
        PROTOBUF,
        "src/apiserver/discovery/served.rs",
        "src/object/key.rs",
        "src/object/schema.rs",
    ] {
        println!("cargo::rerun-if-changed={used}");
    }
    let directory = std::env::var_os("OUT_DIR").expect("cargo sets it");
    let directory = PathBuf::from(directory);
    openapi::write(&directory);
    completions::write(&directory);
    let table = std::fs::read(PROTOBUF).expect("the table of messages");
    std::fs::write(directory.join("protobuf.gz"), compressed(&table)).expect("write the table");
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

/// Without a time in it, so that the same source gives the same program.
fn compressed(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    gzip.write_all(text).expect("a vector takes it");
    gzip.finish().expect("a vector takes it")
}
