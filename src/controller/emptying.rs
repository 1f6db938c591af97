//! A deleted namespace: its pods stop, then everything else in it goes, then it goes itself.
//!
//! What is of a manifest stays for as long as its file does, and keeps the namespace: its conditions
//! say so. Source: Kubernetes pkg/controller/namespace/deletion (ordered deletion),
//! status_condition_utils.go.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Controllers, Outcome, actor};
use crate::object::{Kind, Object, Origin};
use crate::registry::{Deletion, Packed, Precondition, Reader};

/// The namespace's own finalizer, which stands for its content.
const FINALIZER: &str = "kubernetes";
/// Deletions of one turn; the changes that they make bring the next.
const DELETIONS_MAX: usize = 64;

/// One step towards the end of a namespace.
pub async fn turn(controllers: &Controllers, namespace: &Object) -> Outcome {
    let reader = controllers.reader();
    let name = &namespace.key.name;
    let mut failure = None;
    for object in next_to_go(&reader, name) {
        let deletion = Deletion {
            precondition: Precondition {
                uid: Some(object.uid().to_owned()),
                ..Precondition::default()
            },
            ..Deletion::default()
        };
        let key = object.key().clone();
        let deleted = controllers.registry.delete(actor(), key, deletion).await;
        if Outcome::of(deleted.as_ref().map_err(Clone::clone)) == Outcome::Failed {
            failure = deleted.err().map(|error| error.to_string());
            break;
        }
    }
    let left = content(&reader, name);
    if left.is_empty() && failure.is_none() {
        return finalize(controllers, namespace).await;
    }
    // The newest status: others write to it too.
    let Some(now) = reader.get(&namespace.key) else {
        return Outcome::Settled;
    };
    let time = controllers.clock.wall().strftime("%Y-%m-%dT%H:%M:%SZ");
    let findings = conditions(&left, failure.as_deref());
    let status = with_conditions(&now.body["status"], findings, &time.to_string());
    if status != now.body["status"] {
        controllers
            .registry
            .update_status(&now.key, now.uid(), status);
    }
    match failure {
        Some(_) => Outcome::Failed,
        None => Outcome::Settled,
    }
}

/// What the registry holds in a namespace, as it is at rest.
fn content(reader: &Reader, namespace: &str) -> Vec<Arc<Packed>> {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.namespaced());
    let all = kinds.flat_map(|kind| reader.list_packed(kind, Some(namespace)).0);
    all.filter(|object| object.key().origin == Origin::Local)
        .collect()
}

/// Pods first: what they use stays until they have stopped.
fn next_to_go(reader: &Reader, namespace: &str) -> Vec<Arc<Packed>> {
    let mut all = content(reader, namespace);
    if all.iter().any(|object| object.key().kind == Kind::Pod) {
        all.retain(|object| object.key().kind == Kind::Pod);
    }
    all.retain(|object| !object.is_deleting());
    all.truncate(DELETIONS_MAX);
    all
}

/// Takes the finalizer away; without another one the namespace is gone with it.
async fn finalize(controllers: &Controllers, namespace: &Object) -> Outcome {
    let Some(now) = controllers.reader().get(&namespace.key) else {
        return Outcome::Settled;
    };
    let mut body = now.body.clone();
    let Some(finalizers) = body["spec"]["finalizers"].as_array_mut() else {
        return Outcome::Settled;
    };
    let before = finalizers.len();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if finalizers.len() == before {
        return Outcome::Settled;
    }
    let mut actor = actor();
    actor.subresource = "finalize";
    let key = now.key.clone();
    let updated = controllers
        .registry
        .update(actor, key, body, Precondition::default());
    Outcome::of(updated.await)
}

/// One entry of `status.conditions` without its time.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    /// Reason and message while it does not hold; the same if it does.
    fn new(
        kind: &'static str,
        (quiet, text): (&'static str, &str),
        (loud, message): (&'static str, Option<String>),
    ) -> Finding {
        Finding {
            kind,
            holds: message.is_some(),
            reason: if message.is_some() { loud } else { quiet },
            message: message.unwrap_or_else(|| text.to_owned()),
        }
    }
}

const DELETED: &str = "All content successfully deleted, may be waiting on finalization";
const HELD: &str = "Some content in the namespace has finalizers remaining";

/// How far the emptying is, in upstream's words.
fn conditions(left: &[Arc<Packed>], failure: Option<&str>) -> [Finding; 5] {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<String, usize> = BTreeMap::new();
    for object in left {
        *kinds.entry(object.key().kind.plural()).or_default() += 1;
        let metadata = object.metadata();
        let names = metadata["finalizers"].as_array().into_iter().flatten();
        for name in names.filter_map(Value::as_str) {
            *finalizers.entry(name.to_owned()).or_default() += 1;
        }
    }
    let remaining = list(&kinds, |name, count| {
        format!("{name}. has {count} resource instances")
    });
    let held = list(&finalizers, |name, count| {
        format!("{name} in {count} resource instances")
    });
    let failed =
        failure.map(|why| format!("Failed to delete all resource types, 1 remaining: {why}"));
    let some = |what: &str, list: Option<String>| list.map(|list| format!("{what}: {list}"));
    let found = Finding::new;
    [
        found(
            "NamespaceDeletionDiscoveryFailure",
            (
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            ("DiscoveryFailed", None),
        ),
        found(
            "NamespaceDeletionGroupVersionParsingFailure",
            (
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
            ("GroupVersionParsingFailed", None),
        ),
        found(
            "NamespaceDeletionContentFailure",
            ("ContentDeleted", DELETED),
            ("ContentDeletionFailed", failed),
        ),
        found(
            "NamespaceContentRemaining",
            ("ContentRemoved", "All content successfully removed"),
            (
                "SomeResourcesRemain",
                some("Some resources are remaining", remaining),
            ),
        ),
        found(
            "NamespaceFinalizersRemaining",
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
            ("SomeFinalizersRemain", some(HELD, held)),
        ),
    ]
}

/// `None` for an empty list.
fn list<K: AsRef<str>>(
    counts: &BTreeMap<K, usize>,
    text: impl Fn(&str, usize) -> String,
) -> Option<String> {
    let each = counts
        .iter()
        .map(|(name, count)| text(name.as_ref(), *count));
    let texts: Vec<String> = each.collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// The status with these conditions; a time changes only with what it is of.
fn with_conditions(status: &Value, findings: [Finding; 5], time: &str) -> Value {
    let mut known = status["conditions"].as_array().cloned().unwrap_or_default();
    for finding in findings {
        let truth = if finding.holds { "True" } else { "False" };
        let place = known.iter().position(|one| one["type"] == finding.kind);
        let since = match place.map(|n| &known[n]) {
            Some(before) if before["status"] == truth => before["lastTransitionTime"].clone(),
            _ => json!(time),
        };
        let condition = json!({
            "type": finding.kind,
            "status": truth,
            "lastTransitionTime": since,
            "reason": finding.reason,
            "message": finding.message,
        });
        match place {
            Some(n) => known[n] = condition,
            None => known.push(condition),
        }
    }
    json!({"phase": "Terminating", "conditions": known})
}
