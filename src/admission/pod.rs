//! Pods as plug-ins handle them: containers of all lists, to read and to change. Pure.

use serde_json::{Map, Value, json};

pub use crate::object::references::{all_containers, items};

/// Lists of containers as admission goes through them, with what LimitRanger calls their members.
pub const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Each container of these lists, with its place: `spec.containers[0]`.
pub fn placed<'a>(spec: &'a Value, lists: &[&'a str]) -> Vec<(String, &'a Value)> {
    let of_list = |list: &&'a str| {
        let list = *list;
        items(spec, list)
            .enumerate()
            .map(move |(n, container)| (format!("spec.{list}[{n}]"), container))
    };
    lists.iter().flat_map(of_list).collect()
}

/// The elements of a list of objects; none if it is something else.
pub fn items_mut<'a>(
    parent: &'a mut Value,
    list: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = parent.get_mut(list).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Adds to a list that may be absent.
pub fn push(parent: &mut Map<String, Value>, list: &str, item: Value) {
    let list = parent.entry(list).or_insert(Value::Null);
    match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

/// Empty if it is no text.
pub fn text<'a>(parent: &'a Value, field: &str) -> &'a str {
    parent[field].as_str().unwrap_or_default()
}

/// Upstream marks its picture of a static pod by an annotation.
pub fn is_mirror(object: &Value) -> bool {
    object["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
}
