//! Who holds what after a write. Pure.
//!
//! Source: sigs.k8s.io/structured-merge-diff, merge/update.go; Kubernetes apimachinery,
//! util/managedfields/internal/{managedfieldsupdater,stripmeta}.go.

use serde_json::Value;

use super::managers::{Entry, Id, Managers, Operation};
use super::set::Set;
use super::walk::{Comparison, compare, field_set, merge, remove};
use super::{Contested, Failure, Writer, manager_name};
use crate::object::Kind;
use crate::object::schema::Place;

/// What nobody holds: names and what the server sets. Source: `stripSet`.
fn unowned() -> Set {
    Set::of_fields(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
}

/// What a write to this part of an object does not change, whatever it says.
/// Source: `GetResetFields` of Kubernetes' registries (pkg/registry/core).
fn reset_fields(kind: Kind, subresource: &str) -> Set {
    let has_status = matches!(
        kind,
        Kind::Pod | Kind::Node | Kind::Namespace | Kind::Service | Kind::ResourceQuota
    );
    Set::of_fields(match (kind, subresource) {
        (Kind::Pod, "status") => &[
            "spec",
            "metadata.deletionTimestamp",
            "metadata.ownerReferences",
        ],
        (_, "status") => &["spec"],
        _ if has_status => &["status"],
        _ => &[],
    })
}

fn comparison(
    kind: Kind,
    live: &Value,
    object: &Value,
    writer: &Writer,
) -> Result<Comparison, String> {
    let ignored = reset_fields(kind, writer.subresource);
    let all = compare(live, object, Place::root(kind))?;
    Ok(Comparison {
        added: all.added.without_trees(&ignored),
        modified: all.modified.without_trees(&ignored),
        removed: all.removed.without_trees(&ignored),
    })
}

/// Gives what changed from `live` to `object` to the writer, and takes it from all others.
/// Neither has `managedFields`. Errors: lists that cannot be told apart.
pub fn update(
    kind: Kind,
    live: &Value,
    object: &Value,
    managers: &mut Managers,
    writer: &Writer,
) -> Result<(), String> {
    let changes = comparison(kind, live, object, writer)?;
    let changed = changes.modified.union(&changes.added);
    for entry in managers.values_mut() {
        entry.set = entry.set.difference(&changed).difference(&changes.removed);
    }
    let (name, version) = (manager_name(writer), kind.api_version());
    let own = changed.difference(&unowned());
    if !own.is_empty() {
        let id = Id::new(Operation::Update, name, &version, writer.subresource);
        let entry = managers.entry(id).or_insert_with(|| Entry {
            api_version: version,
            time: None,
            set: Set::default(),
        });
        entry.set = entry.set.union(&own);
        entry.time = Some(writer.time.to_owned());
    }
    managers.retain(|_, entry| !entry.set.is_empty());
    Ok(())
}

/// `live` with `applied` in it, without what the writer applied last and nobody holds any more.
/// The time of the writer's entry is left as it was.
pub fn apply(
    kind: Kind,
    live: &Value,
    applied: &Value,
    managers: &mut Managers,
    writer: &Writer,
    contested: Contested,
) -> Result<Value, Failure> {
    let place = Place::root(kind);
    let set = field_set(applied, place)?;
    let set = set.without_trees(&reset_fields(kind, writer.subresource));
    let merged = merge(live, applied, place)?;
    let version = kind.api_version();
    let id = Id::new(
        Operation::Apply,
        manager_name(writer),
        &version,
        writer.subresource,
    );
    let last = managers.get(&id).cloned();
    let entry = Entry {
        api_version: version,
        time: last.as_ref().and_then(|last| last.time.clone()),
        set,
    };
    managers.insert(id.clone(), entry);
    let object = match last {
        Some(last) => prune(&merged, &last.set, managers, place)?,
        None => merged,
    };
    let changes = comparison(kind, live, &object, writer)?;
    let changed = changes.modified.union(&changes.added);
    let mut conflicts = Vec::new();
    for (other, entry) in managers.iter().filter(|(other, _)| **other != id) {
        let contested = entry.set.intersection(&changed);
        let paths = contested.paths().into_iter();
        conflicts.extend(paths.map(|path| (other.clone(), path)));
    }
    if contested == Contested::Refuse && !conflicts.is_empty() {
        return Err(Failure::Conflicts(conflicts));
    }
    for (other, entry) in managers.iter_mut() {
        entry.set = match *other == id {
            true => entry.set.difference(&unowned()),
            false => entry.set.difference(&changed).difference(&changes.removed),
        };
    }
    managers.retain(|_, entry| !entry.set.is_empty());
    Ok(object)
}

/// Takes out of `merged` what is in `last` and is held by nobody, the writer's new set included.
fn prune(merged: &Value, last: &Set, managers: &Managers, place: Place) -> Result<Value, String> {
    let last = last.with_parents();
    let pruned = remove(merged, &last, place);
    let held = managers
        .values()
        .fold(Set::default(), |all, entry| all.union(&entry.set));
    let everything = present(merged, place).with_parents();
    // What others hold comes back, with all on the way to it.
    let kept = present(&pruned, place)
        .with_parents()
        .union(&held.with_parents());
    let pruned = remove(merged, &everything.difference(&kept), place);
    // Only what was the writer's goes: what stood below it and is nobody's stays.
    let kept = present(&pruned, place).with_parents();
    let gone = everything.difference(&kept).intersection(&last);
    Ok(remove(merged, &gone, place))
}

/// All fields of an object as it is, in which elements may stand twice.
fn present(value: &Value, place: Place) -> Set {
    super::walk::lenient_set(value, place)
}
