//! An object with what lowtide knows about it beside its JSON: owner, place of origin, standing.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key::Key;

/// Who owns an object's spec: the only one whose complete list may remove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Source {
    /// `--pod-manifest-path`
    File,
    /// `--manifest-url`
    Http,
    /// The local API.
    Api,
    /// The remote cluster.
    Remote,
    /// The node itself: its Node object, events, built-in namespaces.
    Node,
}

impl Source {
    /// For messages: `file`, `http`, `api`, `remote`, `node`.
    pub fn name(self) -> &'static str {
        match self {
            Source::File => "file",
            Source::Http => "http",
            Source::Api => "api",
            Source::Remote => "remote",
            Source::Node => "node",
        }
    }

    /// The value of annotation `kubernetes.io/config.source`.
    pub fn annotation(self) -> &'static str {
        match self {
            Source::File => "file",
            Source::Http => "http",
            Source::Api | Source::Remote | Source::Node => "api",
        }
    }
}

/// Where an object was written down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Provenance {
    /// Path of the manifest, or its URL.
    pub file: String,
    /// First line of the object's document, from 1.
    pub line: u32,
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What is wrong with the newest text of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub at: Provenance,
    /// CamelCase: `InvalidManifest`, `DuplicateManifest`, `AdmissionDenied` …
    pub reason: String,
    /// Names the field where there is one; lower case, no full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// Whether the object is what its source says now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    Accepted,
    /// The last good version; the source holds a newer text that is not usable.
    Stale(Problem),
    /// Never was usable: shown, so that the user sees it, and not run.
    Rejected(Problem),
}

/// One object: verbatim JSON and its envelope. Immutable; shared by `Arc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object {
    pub key: Key,
    pub source: Source,
    pub provenance: Option<Provenance>,
    pub standing: Standing,
    /// Also in `body.metadata.resourceVersion`, as a decimal string.
    pub resource_version: u64,
    /// The whole object with `apiVersion`, `kind`, `metadata`.
    pub body: Value,
}

/// Of a pod that its cluster counts as ended while it runs here: the phase that it has there.
pub const ENDED_THERE: &str = "lowtide.io/ended-there";

impl Object {
    pub fn metadata(&self) -> &Value {
        &self.body["metadata"]
    }

    /// Empty only for objects that the registry has not stored yet.
    pub fn uid(&self) -> &str {
        self.metadata()["uid"].as_str().unwrap_or_default()
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata()["annotations"].get(name)?.as_str()
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.metadata()["labels"].get(name)?.as_str()
    }

    pub fn is_deleting(&self) -> bool {
        self.metadata()["deletionTimestamp"].is_string()
    }

    /// Seconds; present once deletion was asked for.
    pub fn deletion_grace_s(&self) -> Option<i64> {
        self.metadata()["deletionGracePeriodSeconds"].as_i64()
    }

    /// A mirror pod (a cluster's picture of a static pod): recognised and never run. The static pod has
    /// the annotation itself.
    pub fn is_mirror(&self) -> bool {
        !self.is_static() && self.annotation("kubernetes.io/config.mirror").is_some()
    }

    /// A pod of a manifest: any whose `config.source` is not `api`.
    pub fn is_static(&self) -> bool {
        matches!(self.source, Source::File | Source::Http)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;
    use serde_json::json;

    #[test]
    fn a_pod_of_a_manifest_is_nobodys_picture() {
        let mirror = |source| {
            let annotations = json!({"kubernetes.io/config.mirror": "h"});
            let object = Object {
                key: Key::local(Kind::Pod, "default", "web"),
                source,
                provenance: None,
                standing: Standing::Accepted,
                resource_version: 0,
                body: json!({"metadata": {"annotations": annotations}}),
            };
            object.is_mirror()
        };
        assert!(mirror(Source::Api) && mirror(Source::Remote));
        assert!(!mirror(Source::File) && !mirror(Source::Http));
    }
}
