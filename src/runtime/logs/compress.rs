//! Compresses rotated logs, on behalf of the agent.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::rotation_stamp;
use crate::object::gather::Gather;
use crate::os::{file, thread};

/// Compresses all rotated files of a container's log directory but the newest of each log, which
/// readers may still follow. Blocking: run it on a worker thread. Half-written results of an
/// earlier run are replaced. Answers how many were compressed.
///
/// Source: Kubernetes pkg/kubelet/logs/container_log_manager.go, `compressLog`.
pub fn compress_rotated(directory: &Path) -> io::Result<usize> {
    let mut names: Vec<String> = fs::read_dir(directory)?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let mut done = 0;
    // By the rotated ones: right after its rotation a log has no current file.
    let logs = names
        .iter()
        .filter_map(|name| name.find(".log.").map(|at| &name[..at + 4]));
    for current in logs.gathered::<BTreeSet<&str>>() {
        let rotated = names
            .iter()
            .filter(|n| rotation_stamp(n, current).is_some());
        let mut rotated: Vec<&String> = rotated.collect();
        let _newest = rotated.pop();
        for name in rotated.into_iter().filter(|name| !name.ends_with(".gz")) {
            compress(directory, name)?;
            done += 1;
        }
    }
    Ok(done)
}

fn compress(directory: &Path, name: &str) -> io::Result<()> {
    let source = directory.join(name);
    let temporary = directory.join(format!("{name}.gz.tmp"));
    let target = directory.join(format!("{name}.gz"));
    let mut plain = file::open_nofollow(&source)?;
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let out = file::append_nofollow(&temporary, 0o640)?;
    let written = copy(&mut plain, out).and_then(|()| fs::rename(&temporary, &target));
    match written {
        Ok(()) => match fs::remove_file(&source) {
            // The shim has pruned it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_file(&target),
            removed => removed,
        },
        Err(error) => {
            let _best_effort = fs::remove_file(&temporary);
            Err(error)
        }
    }
}

fn copy(plain: &mut File, out: File) -> io::Result<()> {
    let mut encoder = GzEncoder::new(out, Compression::default());
    io::copy(plain, &mut encoder)?;
    // The original is removed next: a power cut must not leave us with neither.
    thread::flush(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn all_but_the_newest_rotated_file_are_compressed() {
        let home = tempfile::tempdir().expect("temporary directory");
        for name in [
            "0.log.20060102-150405",
            "0.log.20060102-150406",
            "0.log.20060102-150407",
            "0.log.20060102-150406.gz.tmp",
            "1.log",
            "1.log.20060102-150405",
        ] {
            fs::write(home.path().join(name), name).expect("file");
        }
        assert_eq!(compress_rotated(home.path()).expect("compress"), 2);
        assert_eq!(compress_rotated(home.path()).expect("compress"), 0);
        let mut names: Vec<String> = fs::read_dir(home.path())
            .expect("list")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "0.log.20060102-150405.gz",
                "0.log.20060102-150406.gz",
                "0.log.20060102-150407",
                "1.log",
                "1.log.20060102-150405"
            ]
        );
        let packed = File::open(home.path().join("0.log.20060102-150405.gz")).expect("file");
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(packed);
        decoder.read_to_string(&mut text).expect("gzip");
        assert_eq!(text, "0.log.20060102-150405");
    }
}
