//! What is left after a cut, looked at with the program's own code: store, images, records, logs.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use async_io::block_on;
use flate2::read::GzDecoder;
use lowtide::object::{Key, Kind};
use lowtide::os::clock::SystemClock;
use lowtide::os::random::SystemRandom;
use lowtide::registry::{Encryption, Health, Limits, Options, Place, Precondition, Registry};
use lowtide::runtime::images::{self, Depth, ImageStore, Registries};
use lowtide::world::Images;
use serde_json::{Value, json};

use super::claims::Claims;
use crate::host::eventually;

/// What a look found, as lines of text.
#[derive(Debug, Default)]
pub struct Findings {
    /// What the store or the images said about themselves.
    pub said: Vec<String>,
    /// Acknowledged and not there.
    pub lost: Vec<String>,
    /// Broken, and only who reads every byte would know.
    pub silent: Vec<String>,
    /// What keeps a node from working here.
    pub unusable: Vec<String>,
}

/// Repairs the file system in `image` as the next boot does and mounts it. Errors: what fsck said.
pub fn mount(image: &Path, at: &Path) -> Result<(), String> {
    let checked = Command::new("e2fsck")
        .args(["-fy"])
        .arg(image)
        .output()
        .unwrap();
    // 1: repaired.
    if checked.status.code().is_none_or(|code| code & !1 != 0) {
        return Err(String::from_utf8_lossy(&checked.stdout).into_owned());
    }
    let mounted = Command::new("mount")
        .args(["-o", "loop"])
        .arg(image)
        .arg(at)
        .output()
        .unwrap();
    match mounted.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&mounted.stderr).into_owned()),
    }
}

pub fn unmount(at: &Path) {
    // The store's thread may still be closing its file.
    eventually("the disk is free", || {
        Command::new("umount")
            .arg(at)
            .output()
            .unwrap()
            .status
            .success()
    });
}

pub fn look(disk: &Path, claims: &Claims) -> Findings {
    let mut findings = Findings::default();
    let root = disk.join("root");
    look_at_store(&root, claims, &mut findings);
    look_at_images(&root, claims, &mut findings);
    for (name, (uid, _)) in &claims.ended {
        let path = root.join(format!("pods/{uid}/final.json"));
        let text = fs::read(&path).unwrap_or_default();
        let record: Value = serde_json::from_slice(&text).unwrap_or_default();
        if record["content"]["phase"]["phase"] != "Succeeded" {
            findings.lost.push(format!(
                "{name} has succeeded, {}: {record}",
                path.display()
            ));
        }
    }
    look_at_logs(&disk.join("logs"), &mut findings);
    findings
}

/// Logs may end early; what is there was written by a container.
fn look_at_logs(directory: &Path, findings: &mut Findings) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            look_at_logs(&path, findings);
            continue;
        }
        let mut text = fs::read(&path).unwrap();
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension {
            // Half done, and begun anew next time.
            Some("tmp") => continue,
            Some("gz") => {
                let packed = std::mem::take(&mut text);
                let unpacked = GzDecoder::new(packed.as_slice()).read_to_end(&mut text);
                if let Err(error) = unpacked {
                    findings.lost.push(format!("{}: {error}", path.display()));
                }
            }
            _ => {}
        }
        let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        let _unfinished = lines.pop();
        if let Some(wrong) = lines.iter().find(|line| !is_log_line(line)) {
            let wrong = String::from_utf8_lossy(wrong);
            findings.lost.push(format!("{}: {wrong:?}", path.display()));
        }
    }
}

/// `2026-01-02T03:04:05.000000006Z stdout F text`
fn is_log_line(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let parts: Vec<_> = line.splitn(4, ' ').collect();
    parts.len() == 4
        && parts[0].parse::<jiff::Timestamp>().is_ok()
        && ["stdout", "stderr"].contains(&parts[1])
        && ["F", "P"].contains(&parts[2])
}

fn look_at_store(root: &Path, claims: &Claims, findings: &mut Findings) {
    let opened = block_on(Registry::open(Options {
        place: Place::Root {
            directory: root.to_owned(),
            key_credential: None,
        },
        node_name: "n".to_owned(),
        clock: Rc::new(SystemClock::new().unwrap()),
        random: Rc::new(SystemRandom),
        limits: Limits::default(),
        encryption: Encryption::Own,
        admission: Vec::new(),
    }));
    let (registry, report) = match opened {
        Ok(opened) => opened,
        Err(error) => return findings.unusable.push(error.to_string()),
    };
    let aside = fs::read_dir(root).into_iter().flatten().flatten();
    let aside = aside
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .find(|name| name.starts_with("store.redb.corrupt-"));
    match &aside {
        Some(name) if !report.messages.iter().any(|text| text.contains(name)) => {
            let text = format!("{name} was set aside without a word");
            findings.unusable.push(text);
        }
        None if report.begun_anew => findings.unusable.push("a store is gone".to_owned()),
        Some(_) | None => {}
    }
    findings.said.extend(report.messages);
    findings.lost.extend(claims.broken(&registry.reader()));
    let key = Key::local(Kind::ConfigMap, "default", "after-the-cut");
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "after-the-cut", "namespace": "default"},
    });
    let source = lowtide::object::Source::Api;
    if let Err(error) = block_on(registry.create(source, key.clone(), body.clone())) {
        let again = registry.update(source, key, body, Precondition::default());
        if block_on(again).is_err() {
            findings.unusable.push(error.to_string());
        }
    }
    if let Health::Degraded(text) = registry.health() {
        findings.unusable.push(text);
    }
}

fn look_at_images(root: &Path, claims: &Claims, findings: &mut Findings) {
    let opened = block_on(ImageStore::open(images::Options {
        root: root.join("images"),
        checked_mark: root.join("checked-by-the-test"),
        boot_id: String::new(),
        image_dir: None,
        limits: images::Limits::default(),
        registries: Registries::default(),
        docker_config_dirs: Vec::new(),
        proxies: Rc::default(),
        clock: Rc::new(SystemClock::new().unwrap()),
    }));
    let store = match opened {
        Ok(store) => store,
        Err(error) => return findings.unusable.push(error.to_string()),
    };
    for name in &claims.images {
        if store.find(name).is_none() {
            findings.lost.push(format!("image {name} was here"));
        }
    }
    let listed = block_on(store.verify(Depth::Listing)).unwrap();
    let read = block_on(store.verify(Depth::Content)).unwrap();
    findings
        .silent
        .extend(read.into_iter().filter(|line| !listed.contains(line)));
    findings.said.extend(listed);
}
