//! Images for tests, built from this machine's static busybox: OCI layouts and docker archives.
//!
//! Nothing is downloaded. `Recipe::busybox()` is what most tests want; its fields are there to be
//! changed. Include it with `#[path = "support/image.rs"] mod image;`.
#![allow(dead_code)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// What an image is made of.
#[derive(Clone)]
pub struct Recipe {
    /// Plain tars, bottom first.
    pub layers: Vec<Vec<u8>>,
    /// The OCI `config` object: `User`, `Env`, `Cmd` …
    pub config: Value,
    pub packing: Packing,
    /// As the configuration has it; this machine's, if empty.
    pub architecture: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// One entry of a layer.
pub enum Entry<'a> {
    Directory(&'a str, u32),
    File(&'a str, u32, &'a [u8]),
    Symlink(&'a str, &'a str),
}

impl Recipe {
    /// Two layers: busybox with all usual applet links, then `/etc/passwd` (root and `app`, uid
    /// 1000), `/etc/group`, `/tmp`. Runs `sh`.
    pub fn busybox() -> Recipe {
        let program = fs::read("/bin/busybox").expect("busybox-static is installed");
        let applets = [
            "sh", "cat", "echo", "sleep", "ls", "id", "env", "true", "false", "test", "mkdir",
            "rm", "touch", "ps", "kill", "stat", "hostname", "ip", "httpd", "nc", "wget", "dd",
            "head", "tail", "grep", "sed", "mount", "date", "seq", "yes", "chmod", "chown", "ln",
            "pwd", "readlink", "trap", "printf", "wc", "sort", "uname", "vi", "awk", "nslookup",
            "stty", "tar",
        ];
        let links: Vec<String> = applets.iter().map(|name| format!("bin/{name}")).collect();
        let mut base = vec![
            Entry::Directory("bin", 0o755),
            Entry::File("bin/busybox", 0o755, &program),
        ];
        base.extend(links.iter().map(|link| Entry::Symlink(link, "busybox")));
        let users = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n";
        let top = [
            Entry::Directory("etc", 0o755),
            Entry::File("etc/passwd", 0o644, users),
            Entry::File(
                "etc/group",
                0o644,
                b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n",
            ),
            Entry::Directory("tmp", 0o1777),
            Entry::Directory("root", 0o700),
            Entry::Directory("home", 0o755),
            Entry::Directory("home/app", 0o755),
            Entry::Directory("proc", 0o555),
            Entry::Directory("sys", 0o555),
            Entry::Directory("dev", 0o755),
        ];
        Recipe {
            layers: vec![tar_of(&base), tar_of(&top)],
            config: json!({
                "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
                "Cmd": ["sh"],
                "WorkingDir": "/",
            }),
            packing: Packing::Gzip,
            architecture: "",
        }
    }

    /// A small image without a program: quick to move about.
    pub fn small(text: &str) -> Recipe {
        let entries = [Entry::File("text", 0o644, text.as_bytes())];
        Recipe {
            layers: vec![tar_of(&entries)],
            config: json!({"Cmd": ["/text"]}),
            packing: Packing::Gzip,
            architecture: "",
        }
    }

    /// The image configuration document; its digest is the image id.
    pub fn configuration(&self) -> Vec<u8> {
        let architecture = match (self.architecture, std::env::consts::ARCH) {
            ("", "x86_64") => "amd64",
            ("", "aarch64") => "arm64",
            ("", other) => other,
            (said, _) => said,
        };
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let document = json!({
            "architecture": architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        serde_json::to_vec(&document).unwrap()
    }

    /// `sha256:…` of the configuration.
    pub fn id(&self) -> String {
        digest(&self.configuration())
    }

    /// Layers as they travel.
    pub fn packed_layers(&self) -> Vec<Vec<u8>> {
        self.layers
            .iter()
            .map(|layer| pack(layer, self.packing))
            .collect()
    }

    /// The manifest document.
    pub fn manifest(&self) -> Vec<u8> {
        let kind = match self.packing {
            Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
            Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let layers: Vec<Value> = self
            .packed_layers()
            .iter()
            .map(|layer| descriptor(kind, layer))
            .collect();
        let config = "application/vnd.oci.image.config.v1+json";
        let document = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor(config, &self.configuration()),
            "layers": layers,
        });
        serde_json::to_vec(&document).unwrap()
    }

    /// Files of an OCI layout; the index is last, as a careful writer leaves it.
    pub fn layout(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let manifest = self.manifest();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        let mut files = vec![(
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        )];
        let blobs = self
            .packed_layers()
            .into_iter()
            .chain([self.configuration(), manifest]);
        files.extend(blobs.map(|blob| (format!("blobs/sha256/{}", &digest(&blob)[7..]), blob)));
        files.push(("index.json".to_owned(), serde_json::to_vec(&index).unwrap()));
        files
    }

    /// Writes an OCI layout directory named `name` (`busybox:1`).
    pub fn write_layout(&self, directory: &Path, name: &str) {
        fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
        for (path, bytes) in self.layout(name) {
            fs::write(directory.join(path), bytes).unwrap();
        }
    }

    /// An OCI archive's bytes.
    pub fn oci_archive(&self, name: &str) -> Vec<u8> {
        archive(&self.layout(name))
    }

    /// A docker archive's bytes, as `docker save` wrote them for years: the manifest comes last.
    pub fn docker_archive(&self, tags: &[&str]) -> Vec<u8> {
        let config_name = format!("{}.json", &self.id()[7..]);
        let mut files = vec![(config_name.clone(), self.configuration())];
        let mut names = Vec::new();
        for layer in &self.layers {
            let name = format!("{}/layer.tar", &digest(layer)[7..]);
            files.push((name.clone(), layer.clone()));
            names.push(name);
        }
        let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
        files.push((
            "manifest.json".to_owned(),
            serde_json::to_vec(&manifest).unwrap(),
        ));
        archive(&files)
    }
}

/// A plain tar of entries owned by root.
pub fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1_700_000_000);
        match entry {
            Entry::Directory(name, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                header.set_size(0);
                builder.append_data(&mut header, name, &[][..]).unwrap();
            }
            Entry::File(name, mode, bytes) => {
                header.set_mode(*mode);
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, name, *bytes).unwrap();
            }
            Entry::Symlink(name, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Zstd => {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(bytes, level)
        }
    }
}

/// `sha256:<hex>`
pub fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(bytes), "size": bytes.len()})
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<_> = files
        .iter()
        .map(|(name, bytes)| Entry::File(name, 0o644, bytes))
        .collect();
    tar_of(&entries)
}
