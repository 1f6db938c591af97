//! What the API shows of the registry: one view over both origins, local first.
//!
//! A remote object hides behind a local one of the same kind, namespace and name.

use std::sync::Arc;

use super::Shared;
use super::route::Place;
use super::status::Refusal;
use crate::object::{Key, Kind, Object, Origin, order};
use crate::registry::{Gone, Packed, Reader};

fn key(place: &Place, origin: Origin) -> Key {
    Key {
        origin,
        ..Key::local(place.kind, &place.namespace, &place.name)
    }
}

/// The object at `place`, local before remote. Errors: 404.
pub fn get(reader: &Reader, place: &Place) -> Result<Arc<Object>, Refusal> {
    reader
        .get(&key(place, Origin::Local))
        .or_else(|| reader.get(&key(place, Origin::Remote)))
        .ok_or_else(|| Refusal::not_found(place.kind, &place.name))
}

/// The pod at `place`, for what only the node that runs it can do. Errors: 404; 400 where another
/// node runs it.
pub fn pod_here(shared: &Shared, place: &Place) -> Result<Arc<Object>, Refusal> {
    let pod = get(&shared.reader, place)?;
    match pod.body["spec"]["nodeName"].as_str() {
        Some(node) if !node.is_empty() && node != shared.options.node_name => {
            Err(Refusal::bad_request(format!(
                "pod {:?} runs on node {node:?}; this server does not reach into other nodes: ask \
                 that node's own API",
                place.name
            )))
        }
        _ => Ok(pod),
    }
}

/// Objects in order of namespace and name, and the version that the list shows.
pub fn list(reader: &Reader, kind: Kind, namespace: Option<&str>) -> (Vec<Arc<Packed>>, u64) {
    let (objects, version) = reader.list_packed(kind, namespace);
    (seen(objects), version)
}

/// The same as it was at `version`. Errors: history does not reach so far.
pub fn list_at(
    reader: &Reader,
    kind: Kind,
    namespace: Option<&str>,
    version: u64,
) -> Result<Vec<Arc<Packed>>, Gone> {
    Ok(seen(reader.list_packed_at(kind, namespace, version)?))
}

fn seen(mut objects: Vec<Arc<Packed>>) -> Vec<Arc<Packed>> {
    order::sort_by(&mut objects, |a, b| a.key().cmp(b.key()));
    // Origin is the last part of a key, and local sorts before remote.
    objects.dedup_by(|later, kept| {
        let (later, kept) = (later.key(), kept.key());
        later.name == kept.name && later.namespace == kept.namespace
    });
    objects
}

/// Whether a local object hides this one.
pub fn is_hidden(reader: &Reader, key: &Key) -> bool {
    let local = || Key {
        origin: Origin::Local,
        ..key.clone()
    };
    key.origin == Origin::Remote && reader.contains(&local())
}

/// The remote object that a local one has hidden, now that this is gone.
pub fn uncovered(reader: &Reader, local: &Key) -> Option<Arc<Packed>> {
    let remote = Key {
        origin: Origin::Remote,
        ..local.clone()
    };
    let hid = local.origin == Origin::Local && !is_hidden(reader, &remote);
    reader.get_packed(&remote).filter(|_| hid)
}
