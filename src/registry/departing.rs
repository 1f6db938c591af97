//! How an object goes: at once, with grace, or held by finalizers.
//!
//! ```text
//!   pod of a node ── grace ──► deletionTimestamp, until the kubelet says it has stopped ─┐
//!   with finalizers ─────────► deletionTimestamp, until the last of them is taken away ──┴─► gone
//!   others, and pods of nodes that are not there ────────────────────────────────────────►
//! ```
//!
//! Times of wall clocks are written down here and never compared with how long something took.
//! Source: Kubernetes apiserver, registry/rest/delete.go and registry/generic/registry/store.go. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use super::Error;
use super::desk::{Desk, seconds_text};
use super::write::{Deletion, Propagation};
use crate::object::{Key, Kind, Object};

/// Seconds between SIGTERM and SIGKILL when the pod does not say. Upstream:
/// `DefaultTerminationGracePeriodSeconds`.
const GRACE_DEFAULT_S: i64 = 30;

/// Finalizers of the garbage collector: they say what is to become of dependants.
pub(super) const FINALIZER_ORPHAN: &str = "orphan";
pub(super) const FINALIZER_FOREGROUND: &str = "foregroundDeletion";

/// Source: Kubernetes pkg/registry/core/namespace/storage.
const NAMESPACE_BUSY: &str = "The system is ensuring all content is removed from this namespace.  \
    Upon completion, this namespace will automatically be purged by the system.";

/// What a deletion makes of an object.
pub(super) enum Departing {
    Goes,
    Changes(Box<Object>),
    /// It goes already, and no slower than asked for.
    Stays,
}

impl Desk {
    /// What a deletion makes of an object. Errors: a namespace that is being emptied.
    pub fn departing(&self, current: &Object, deletion: &Deletion) -> Result<Departing, Error> {
        let asked = deletion
            .grace_s
            .map(|asked| if asked < 0 { 1 } else { asked });
        let grace_s = match (stopping_s(current), asked) {
            _ if self.lacks_node(current) => 0,
            (None, asked) => grace_for(current, asked),
            (Some(running), Some(asked)) if asked < running => asked,
            // What becomes of dependants was settled when it began to stop, too.
            (Some(_), _) => return Ok(Departing::Stays),
        };
        let mut next = current.clone();
        set_policy(&mut next, deletion.propagation);
        if next.key.kind == Kind::Namespace && is_held(&next) {
            if current.is_deleting() {
                return Err(Error::Conflict {
                    key: current.key.clone(),
                    message: NAMESPACE_BUSY.to_owned(),
                });
            }
            next.body["status"]["phase"] = json!("Terminating");
        }
        if grace_s == 0 && !is_held(&next) {
            return Ok(Departing::Goes);
        }
        Ok(match self.deleting(&next, grace_s) {
            Some(object) => Departing::Changes(Box::new(object)),
            None if next.body != current.body => Departing::Changes(Box::new(next)),
            None => Departing::Stays,
        })
    }

    /// Whether it is a pod of a node that is not there: nobody will say that it has stopped.
    pub fn lacks_node(&self, object: &Object) -> bool {
        let name = object.body["spec"]["nodeName"].as_str().unwrap_or_default();
        object.key.kind == Kind::Pod && !name.is_empty() && name != self.node_name && {
            let node = Key::local(Kind::Node, "", name);
            self.committer.shared.look().get(&node).is_none()
        }
    }

    /// The object on its way out, or `None` if it already has no longer than `grace_s` seconds.
    pub fn deleting(&self, current: &Object, grace_s: i64) -> Option<Object> {
        let running = current.deletion_grace_s();
        if running.is_some_and(|running| running <= grace_s) {
            return None;
        }
        let mut object = current.clone();
        let now = self.clock.wall();
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        // A shorter grace counts from when the first one did; what is past is now.
        let end = current.metadata()["deletionTimestamp"].as_str();
        let end = end.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let begun = end
            .zip(running)
            .and_then(|(end, running)| end.checked_sub(seconds(running)).ok());
        let ends = begun.unwrap_or(now).saturating_add(seconds(grace_s));
        let ends = ends.unwrap_or(jiff::Timestamp::MAX).max(now);
        let generation = object.metadata()["generation"].as_i64().unwrap_or(0);
        let metadata = &mut object.body["metadata"];
        if !current.is_deleting() && generation > 0 {
            metadata["generation"] = json!(generation + 1);
        }
        metadata["deletionTimestamp"] = json!(seconds_text(ends));
        metadata["deletionGracePeriodSeconds"] = json!(grace_s);
        Some(object)
    }
}

/// Seconds of grace that a pod which was asked to stop began with; `None` for what may go.
fn stopping_s(object: &Object) -> Option<i64> {
    let stops = object.key.kind == Kind::Pod && object.is_deleting();
    object
        .deletion_grace_s()
        .filter(|grace_s| stops && *grace_s > 0)
}

/// Seconds that the object is given: only pods that a node has and that have not ended get any.
fn grace_for(object: &Object, asked: Option<i64>) -> i64 {
    let bound = object.body["spec"]["nodeName"].as_str().unwrap_or_default() != "";
    let ended = matches!(
        object.body["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    match object.key.kind == Kind::Pod && bound && !ended {
        true => asked.unwrap_or_else(|| grace_of(object)),
        false => 0,
    }
}

/// Seconds that a pod is given to stop.
pub(super) fn grace_of(pod: &Object) -> i64 {
    let stated = pod.body["spec"]["terminationGracePeriodSeconds"].as_i64();
    match stated.unwrap_or(GRACE_DEFAULT_S) {
        negative if negative < 0 => 1,
        seconds => seconds,
    }
}

fn set_policy(object: &mut Object, propagation: Option<Propagation>) {
    let wanted = match propagation {
        None => return,
        // Nothing is ever owned by one.
        Some(_) if object.key.kind == Kind::Event => None,
        Some(Propagation::Background) => None,
        Some(Propagation::Foreground) => Some(FINALIZER_FOREGROUND),
        Some(Propagation::Orphan) => Some(FINALIZER_ORPHAN),
    };
    let metadata = &mut object.body["metadata"];
    let mut finalizers = metadata["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    finalizers.retain(|one| one != FINALIZER_ORPHAN && one != FINALIZER_FOREGROUND);
    finalizers.extend(wanted.map(Value::from));
    if !finalizers.is_empty() {
        metadata["finalizers"] = Value::Array(finalizers);
    } else if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("finalizers");
    }
}

/// Whether finalizers keep the object once it is deleted.
pub(super) fn is_held(object: &Object) -> bool {
    let holds = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
    holds(&object.metadata()["finalizers"])
        || object.key.kind == Kind::Namespace && holds(&object.body["spec"]["finalizers"])
}
