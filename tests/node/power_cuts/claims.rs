//! What was acknowledged, as it is said on the disk, and what may therefore be found there.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lowtide::object::{Key, Kind};
use lowtide::registry::Reader;
use serde_json::{Value, json};

use super::recorded::FILE_SYSTEM_BYTES;
use super::writes::Entry;
use crate::support::{FOREVER, IMAGE};

/// Objects that are written in steps, each by one writer, one step after the other.
pub const WRITTEN: [(Kind, &[&str]); 3] = [
    (Kind::ConfigMap, &["c1", "c2", "c3", "c4"]),
    (Kind::Secret, &["s1", "s2", "s3"]),
    // Named as if they were of manifests, for the sake of `Node::pod`.
    (Kind::Pod, &["p1-n", "p2-n"]),
];

/// What is known to be acknowledged at one moment.
#[derive(Clone, Default)]
pub struct Claims {
    /// The last acknowledged step of an object, by kind and name.
    steps: BTreeMap<(String, String), u64>,
    version: u64,
    pub images: BTreeSet<String>,
    /// Pods that have succeeded: name to uid and container.
    pub ended: BTreeMap<String, (String, String)>,
}

/// What a step makes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Create,
    Update,
    Patch,
    Delete,
}

pub fn act(step: u64) -> Act {
    match step % 4 {
        1 => Act::Create,
        2 => Act::Update,
        3 => Act::Patch,
        _ => Act::Delete,
    }
}

/// The object as a step leaves it; sizes differ.
pub fn object(kind: Kind, name: &str, step: u64) -> Value {
    let width = (step as usize * 997) % 5000 + 1;
    let text = format!("{step:0width$}");
    let mut object = json!({
        "apiVersion": "v1",
        "kind": kind.name(),
        "metadata": {"name": name, "namespace": "default", "labels": {"step": step.to_string()}},
    });
    match kind {
        Kind::Secret => object["data"] = json!({"text": BASE64.encode(text)}),
        Kind::Pod => {
            let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", FOREVER]});
            object["spec"] = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
        }
        _ => object["data"] = json!({"text": text}),
    }
    object
}

impl Claims {
    /// Takes one claim:
    /// ```text
    ///   object KIND NAME STEP VERSION   this step of the object is acknowledged
    ///   image NAME                      it is here
    ///   collects                        images that no pod needs may go from here on
    ///   ended NAME UID CONTAINER        the API says that this pod has succeeded
    ///   forgets NAME                    its manifest is about to go
    /// ```
    fn take(&mut self, text: &str) {
        match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["object", kind, name, step, version] => {
                let key = ((*kind).to_owned(), (*name).to_owned());
                self.steps.insert(key, step.parse().unwrap());
                self.version = self.version.max(version.parse().unwrap());
            }
            ["image", name] => drop(self.images.insert((*name).to_owned())),
            ["collects"] => self.images.retain(|name| name == IMAGE),
            ["ended", name, uid, container] => {
                let ended = ((*uid).to_owned(), (*container).to_owned());
                self.ended.insert((*name).to_owned(), ended);
            }
            ["forgets", name] => drop(self.ended.remove(*name)),
            other => panic!("claim {other:?}"),
        }
    }

    /// Takes what an entry of the record claims, if anything.
    pub fn take_from(&mut self, entry: &Entry) {
        if let Entry::Write { offset, bytes } = entry
            && *offset as u64 >= FILE_SYSTEM_BYTES
        {
            self.take(std::str::from_utf8(bytes).unwrap());
        }
    }

    /// What is not as acknowledged. An object may be one step further: the next one was under way.
    pub fn broken(&self, reader: &Reader) -> Vec<String> {
        let mut broken = Vec::new();
        for (kind, names) in WRITTEN {
            for name in names {
                let key = (kind.name().to_owned(), (*name).to_owned());
                let step = self.steps.get(&key).copied().unwrap_or(0);
                let found = reader.get(&Key::local(kind, "default", name));
                let found = found.map(|object| object.body.clone());
                if ![step, step + 1]
                    .iter()
                    .any(|step| fits(found.as_ref(), kind, name, *step))
                {
                    let what = found.map_or("nothing".to_owned(), |object| {
                        let text = object.to_string();
                        text.chars().take(300).collect()
                    });
                    broken.push(format!(
                        "{kind:?} {name}: step {step} is acknowledged, there is {what}"
                    ));
                }
            }
        }
        if reader.version() < self.version {
            let (is, was) = (reader.version(), self.version);
            broken.push(format!("versions begin at {is}, {was} was given out"));
        }
        broken
    }
}

fn fits(found: Option<&Value>, kind: Kind, name: &str, step: u64) -> bool {
    let (Some(found), false) = (found, act(step) == Act::Delete) else {
        return found.is_none() && act(step) == Act::Delete;
    };
    let wanted = object(kind, name, step);
    found["data"] == wanted["data"] && found["metadata"]["labels"] == wanted["metadata"]["labels"]
}
