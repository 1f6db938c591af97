//! A store put back as it was before another program wrote to it, and what that undoes.
//!
//! For a program that is exchanged (`upgrade`), while nobody has the stores open. Compares records,
//! not objects: statuses and versions are in none of them, and Secrets need not be opened. Blocks;
//! the files are small.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::store::{Directory, LookError, Records, look, reserve};
use crate::object::Source;
use crate::object::gather::Gather;

/// Versions between a store that is put back and the one after it, if that one cannot be read.
const VERSIONS_SKIPPED: u64 = 1 << 24;

/// Why stores cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlike {
    /// A later release may be able to.
    Newer(String),
    Failed(String),
}

/// What was acknowledged since the store below `before` was kept and is only in that below `after`:
/// a line for each object, `created ConfigMap default/a`. What is stated again after a restart
/// (manifests, a cluster, the node itself) is left out.
pub fn written_since(before: &Path, after: &Path) -> Result<Vec<String>, Unlike> {
    let (before, after) = (records(before)?, records(after)?);
    let mut lines = Vec::new();
    for (name, value) in &after {
        match before.get(name) {
            None => lines.extend(line("created", name, value)),
            Some(old) if old != value => lines.extend(line("changed", name, value)),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|(name, _)| !after.contains_key(*name));
    lines.extend(gone.filter_map(|(name, value)| line("deleted", name, value)));
    Ok(lines)
}

/// Lets the versions of the store below `kept` go on above those that the store below `after` has
/// given out: no watcher may see them fall.
pub fn outrun(kept: &Path, after: &Path) -> Result<(), String> {
    let own = look(&store(kept)).map_err(|error| error.to_string())?;
    let below = match look(&store(after)) {
        Ok(contents) => own.versions_below.max(contents.versions_below),
        Err(_) => own.versions_below + VERSIONS_SKIPPED,
    };
    reserve(Arc::new(store(kept)), below).map_err(|error| error.0)
}

fn store(root: &Path) -> Directory {
    Directory {
        root: root.to_owned(),
        key_credential: None,
    }
}

fn records(root: &Path) -> Result<BTreeMap<String, Vec<u8>>, Unlike> {
    match look(&store(root)) {
        Ok(contents) => Ok(contents.records.into_iter().gathered()),
        Err(LookError::Newer(text)) => Err(Unlike::Newer(text)),
        Err(LookError::Failed(text)) => Err(Unlike::Failed(text)),
    }
}

/// `None`: nobody's write. A sealed record does not say whose it is: then it is somebody's.
fn line(verb: &str, name: &str, value: &[u8]) -> Option<String> {
    let (_origin, rest) = name.split_once('/')?;
    let (kind, rest) = rest.split_once('/')?;
    let read = Records::of_nothing().read(name, value);
    let source = read.map_or(Source::Api, |object| object.source);
    (source == Source::Api).then(|| format!("{verb} {kind} {}", rest.trim_start_matches('/')))
}
