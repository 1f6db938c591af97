//! `images`, `pull`, `import`: the node's image store.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::Path;

use clap::ArgMatches;
use http::Method;
use serde_json::Value;

use super::print::{self, Columns};
use super::transport::{Client, Error, Lines, read_json};
use super::{JSON, put, text, texts};
use crate::apiserver::backend::PullProgress;
use crate::apiserver::query::encode;
use crate::object::order;

/// How many digits of a digest are shown. Source: docker, crictl.
const SHORT_DIGEST: usize = 12;

pub fn list(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    let images = client.block_on(client.get("/lowtide/v1/images", JSON))?;
    match text(matches, "output") {
        Some("json") => return put(print::to_json(&images)),
        Some("yaml") => return put(print::to_yaml(&images)),
        _ => {}
    }
    let head = ["IMAGE", "ID", "SIZE", "PINNED"]
        .map(str::to_owned)
        .to_vec();
    let images = images["items"].as_array().into_iter().flatten();
    let mut rows: Vec<Vec<String>> = images.flat_map(image_rows).collect();
    if rows.is_empty() {
        eprintln!("No images found.");
        return Ok(());
    }
    order::sort(&mut rows);
    rows.insert(0, head);
    put(Columns::default().print(&rows))
}

/// One row for each name of an image, or one for an image without.
fn image_rows(image: &Value) -> Vec<Vec<String>> {
    let id = image["id"].as_str().unwrap_or_default();
    let size = human_bytes(image["sizeBytes"].as_u64().unwrap_or(0));
    let pinned = if image["pinned"] == true { "yes" } else { "no" };
    let row = |name: String| vec![name, short(id), size.clone(), pinned.to_owned()];
    let names = |field: &str| image[field].as_array().cloned().unwrap_or_default();
    let mut shown = names("tags");
    if shown.is_empty() {
        shown = names("digests");
    }
    match shown.is_empty() {
        true => vec![row("<none>".to_owned())],
        false => shown.iter().map(|name| row(print::cell(name))).collect(),
    }
}

fn short(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    print::harmless(hex.get(..SHORT_DIGEST).unwrap_or(hex))
}

/// `4.3MB`, in powers of ten as image tools count.
fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64 / 1000.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if size < 999.95 {
            break;
        }
        size /= 1000.0;
        unit = next;
    }
    format!("{size:.1}{unit}")
}

pub fn pull(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    let reference = text(matches, "reference").unwrap_or_default();
    let path = format!("/lowtide/v1/images/pull?reference={}", encode(reference));
    client.block_on(async {
        let mut lines = Lines::of(client.send(Method::POST, &path, JSON).await?);
        let mut progress = Progress::new();
        while let Some(line) = lines.next().await? {
            let senseless = |error| Error::Broken(format!("read the node's answer: {error}"));
            match serde_json::from_value(line).map_err(senseless)? {
                PullProgress::Blob {
                    digest,
                    done_bytes,
                    total_bytes,
                } => progress.blob(&digest, done_bytes, total_bytes),
                PullProgress::Done { id, size_bytes } => {
                    progress.clear();
                    let (id, size) = (short(&id), human_bytes(size_bytes));
                    return put(format!("{reference}: {id}, {size}\n"));
                }
                PullProgress::Failed { message } => {
                    progress.clear();
                    return Err(Error::Broken(format!("pull {reference}: {message}")));
                }
            }
        }
        Err(Error::Broken(format!(
            "pull {reference}: the node ended the answer"
        )))
    })
}

/// One line that is written over and over on a terminal; elsewhere one line when a blob begins and one
/// when it is there.
struct Progress {
    on: Output,
    blobs: HashMap<String, Blob>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Terminal,
    File,
}

struct Blob {
    done_bytes: u64,
    total_bytes: u64,
}

/// Back to the start of the line, which is cleared. Source: ECMA-48, EL.
const OVERWRITE: &str = "\r\x1b[K";

impl Progress {
    fn new() -> Progress {
        let on = match std::io::stderr().is_terminal() {
            true => Output::Terminal,
            false => Output::File,
        };
        let blobs = HashMap::new();
        Progress { on, blobs }
    }

    fn blob(&mut self, digest: &str, done_bytes: u64, total_bytes: u64) {
        let now = Blob {
            done_bytes,
            total_bytes,
        };
        let done = now.is_done();
        let before = self.blobs.insert(digest.to_owned(), now);
        match self.on {
            Output::Terminal => eprint!("{OVERWRITE}{}", self.summary()),
            Output::File => {
                if before.is_none() {
                    eprintln!("{}: {}", short(digest), human_bytes(total_bytes));
                }
                if done && !before.is_some_and(|blob| blob.is_done()) {
                    eprintln!("{}: done", short(digest));
                }
            }
        }
    }

    /// `2 of 3 blobs, 12.3MB of 45.6MB`
    fn summary(&self) -> String {
        let blobs = || self.blobs.values();
        let done = blobs().filter(|blob| blob.is_done()).count();
        let sum = |bytes: fn(&Blob) -> u64| human_bytes(blobs().map(bytes).sum());
        format!(
            "{done} of {} blobs, {} of {}",
            self.blobs.len(),
            sum(|blob| blob.done_bytes),
            sum(|blob| blob.total_bytes)
        )
    }

    fn clear(&self) {
        if self.on == Output::Terminal {
            eprint!("{OVERWRITE}");
        }
    }
}

impl Blob {
    fn is_done(&self) -> bool {
        self.done_bytes >= self.total_bytes
    }
}

pub fn import(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    for file in texts(matches, "files") {
        let path = Path::new(file)
            .canonicalize()
            .map_err(|error| Error::Broken(format!("import {file}: {error}")))?;
        let path = path
            .to_str()
            .ok_or_else(|| Error::Usage(format!("import {file}: the path is not UTF-8")))?;
        let request = format!("/lowtide/v1/images/import?path={}", encode(path));
        let answer = client.block_on(async {
            let response = client.send(Method::POST, &request, JSON).await?;
            read_json(response).await
        })?;
        let references = answer["references"].as_array().into_iter().flatten();
        for reference in references {
            put(format!("{}\n", print::cell(reference)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_one_line() {
        let mut progress = Progress {
            on: Output::File,
            blobs: HashMap::new(),
        };
        for (digest, done, total) in [
            ("sha256:a", 500, 2000),
            ("sha256:b", 7, 7),
            ("sha256:a", 1500, 2000),
        ] {
            progress.blob(digest, done, total);
        }
        assert_eq!(progress.summary(), "1 of 2 blobs, 1.5kB of 2.0kB");
    }

    #[test]
    fn sizes_read_as_in_image_tools() {
        let table = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (999_949, "999.9kB"),
            (999_950, "1.0MB"),
            (4_260_000, "4.3MB"),
            (7_000_000_000, "7.0GB"),
        ];
        for (bytes, text) in table {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
