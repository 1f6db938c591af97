//! Strategic merge: a merge patch that knows which lists are merged, and by which key.
//!
//! Beside values, a patch may hold directives: `$patch: replace|delete` in a map or an element,
//! `$retainKeys: [..]`, `$deleteFromPrimitiveList/FIELD: [..]`, `$setElementOrder/FIELD: [..]`.
//! None of them ever gets into the result.
//! Source: Kubernetes apimachinery, util/strategicpatch/patch.go.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{self, Identity};
use crate::object::Kind;
use crate::object::gather::Gather;
use crate::object::schema::{Patch, Place};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_SCALARS: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies `patch` to `object`, merging lists as the kind's fields say. Errors: `Malformed` for a
/// directive that has no sense, with its path; `Rejected` for lists of lists.
pub fn strategic_merge(kind: Kind, object: Value, patch: Value) -> Result<Value, PatchError> {
    let (Value::Object(object), Value::Object(patch)) = (object, patch) else {
        return Err(PatchError::Malformed("invalid JSON document".to_owned()));
    };
    let merged = merge_map(object, patch, Place::root(kind), "")?;
    Ok(Value::Object(merged))
}

type Fields = Map<String, Value>;

fn malformed<T>(path: &str, text: impl std::fmt::Display) -> Result<T, PatchError> {
    let path = path.strip_prefix('.').unwrap_or(path);
    Err(PatchError::Malformed(match path {
        "" => text.to_string(),
        path => format!("{path}: {text}"),
    }))
}

fn merge_map(
    mut object: Fields,
    mut patch: Fields,
    place: Place,
    path: &str,
) -> Result<Fields, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(cleaned_fields(patch)),
            Some("delete") => Ok(Fields::new()),
            _ => malformed(path, format_args!("unknown patch type: {directive} in map")),
        };
    }
    if let Some(keys) = patch.remove(RETAIN_KEYS) {
        retain_keys(&mut object, &patch, &keys, path)?;
    }
    merge_ordered(&mut object, &mut patch, place, path)?;
    for (name, wanted) in patch {
        if let Some(field) = name.strip_prefix(DELETE_SCALARS) {
            delete_scalars(&mut object, field, &wanted, path)?;
            continue;
        }
        let below = format!("{path}.{name}");
        let merged = match (object.remove(&name), wanted) {
            (_, Value::Null) => None,
            (Some(Value::Object(present)), Value::Object(wanted)) => {
                let place = place.field(&name);
                Some(Value::Object(merge_map(present, wanted, place, &below)?))
            }
            (Some(Value::Array(present)), Value::Array(wanted)) => {
                let place = place.field(&name);
                Some(Value::Array(merge_list(present, wanted, place, &below)?))
            }
            (_, wanted) => cleaned(wanted),
        };
        if let Some(merged) = merged {
            object.insert(name, merged);
        }
    }
    Ok(object)
}

/// Drops what `keys` does not name. A patch that sets anything else contradicts itself.
fn retain_keys(
    object: &mut Fields,
    patch: &Fields,
    keys: &Value,
    path: &str,
) -> Result<(), PatchError> {
    let keys: Option<BTreeSet<&str>> = keys
        .as_array()
        .and_then(|keys| keys.iter().map(Value::as_str).collect());
    let contradicts = |keys: &BTreeSet<&str>| {
        patch.iter().any(|(name, value)| {
            let directive = name.starts_with(DELETE_SCALARS) || name.starts_with(ELEMENT_ORDER);
            !value.is_null() && !directive && !keys.contains(name.as_str())
        })
    };
    match keys {
        Some(keys) if !contradicts(&keys) => {
            object.retain(|name, _| keys.contains(name.as_str()));
            Ok(())
        }
        _ => malformed(path, "invalid patch format of retainKeys"),
    }
}

fn delete_scalars(
    object: &mut Fields,
    field: &str,
    gone: &Value,
    path: &str,
) -> Result<(), PatchError> {
    let Value::Array(gone) = gone else {
        return malformed(path, "invalid patch format of primitive list");
    };
    let gone: BTreeSet<String> = gone.iter().map(Value::to_string).gathered();
    if let Some(Value::Array(present)) = object.get_mut(field) {
        present.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

/// Merges the lists whose order the patch states, and takes both out of the patch.
fn merge_ordered(
    object: &mut Fields,
    patch: &mut Fields,
    place: Place,
    path: &str,
) -> Result<(), PatchError> {
    let directives = patch.keys().filter(|name| name.starts_with(ELEMENT_ORDER));
    let directives: Vec<String> = directives.cloned().collect();
    for directive in directives {
        let name = &directive[ELEMENT_ORDER.len()..];
        let (place, below) = (place.field(name), format!("{path}.{name}"));
        let bad = || malformed(&below, "invalid patch format of setElementOrder list");
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return bad();
        };
        let identity = Identity::of(place.patch);
        let wanted = match patch.remove(name) {
            None => None,
            Some(Value::Array(wanted)) => Some(wanted),
            Some(_) => return bad(),
        };
        let present = match object.get(name) {
            None => None,
            Some(Value::Array(present)) => Some(present.clone()),
            Some(_) => return bad(),
        };
        if let Some(wanted) = &wanted
            && !order::agrees(wanted, &order, identity, &|item| is_directive(item))
        {
            return malformed(
                &below,
                "the order of the patch's list does not match its $setElementOrder list",
            );
        }
        let merged = match (present.clone(), wanted) {
            (None, None) => continue,
            (Some(present), None) => present,
            (None, Some(wanted)) => cleaned_list(wanted),
            (Some(present), Some(wanted)) => merge_list(present, wanted, place, &below)?,
        };
        let present = present.unwrap_or_default();
        let arranged = order::arrange(merged, &order, &present, identity);
        object.insert(name.to_owned(), Value::Array(arranged));
    }
    Ok(())
}

fn merge_list(
    present: Vec<Value>,
    wanted: Vec<Value>,
    place: Place,
    path: &str,
) -> Result<Vec<Value>, PatchError> {
    if present.iter().chain(&wanted).any(Value::is_array) && place.patch != Patch::Replace {
        return Err(PatchError::Rejected(format!(
            "{}: lists of lists are not supported",
            path.trim_start_matches('.')
        )));
    }
    let identity = Identity::of(place.patch);
    match place.patch {
        Patch::Replace => Ok(cleaned_list(wanted)),
        Patch::MergeScalars => {
            if present.iter().chain(&wanted).any(Value::is_object) {
                return malformed(path, "list element types are not identical");
            }
            let mut merged = present.clone();
            merged.extend(wanted.iter().cloned());
            let merged = order::unique(merged, identity);
            Ok(order::arrange(merged, &wanted, &present, identity))
        }
        Patch::Merge(key) | Patch::MergeRetainKeys(key) => {
            let (present, wanted) = special_elements(present, wanted, key, path)?;
            let merged = merge_elements(present.clone(), &wanted, key, place, path)?;
            Ok(order::arrange(merged, &wanted, &present, identity))
        }
    }
}

/// Carries out `$patch` elements. Gives what is present then, and the elements to be merged.
fn special_elements(
    mut present: Vec<Value>,
    wanted: Vec<Value>,
    key: &str,
    path: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::new();
    let (mut replace, mut gone) = (false, BTreeSet::new());
    for item in wanted {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                gone.insert(identify(&item, key, path)?);
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return malformed(path, "merging lists cannot yet be specified in the patch");
            }
            _ => return malformed(path, format_args!("unknown patch type: {directive} in map")),
        }
    }
    if replace {
        return Ok((cleaned_list(plain), Vec::new()));
    }
    if !gone.is_empty() {
        present.retain(|item| {
            item.get(key)
                .is_none_or(|key| !gone.contains(&key.to_string()))
        });
    }
    Ok((present, plain))
}

/// The value of an element's key as text.
fn identify(item: &Value, key: &str, path: &str) -> Result<String, PatchError> {
    if !item.is_object() {
        return malformed(path, "list element types are not identical");
    }
    match item.get(key) {
        Some(value) => Ok(value.to_string()),
        None => malformed(
            path,
            format_args!("map: {item} does not contain declared merge key: {key}"),
        ),
    }
}

fn merge_elements(
    mut present: Vec<Value>,
    wanted: &[Value],
    key: &str,
    place: Place,
    path: &str,
) -> Result<Vec<Value>, PatchError> {
    let mut places = order::index(&present, Identity::Member(key));
    for item in wanted {
        let name = identify(item, key, path)?;
        let Value::Object(wanted) = item.clone() else {
            unreachable!("what has a member is a map");
        };
        match places.get(&name) {
            Some(&at) => {
                let Value::Object(found) = present[at].take() else {
                    unreachable!("what has a member is a map");
                };
                let below = format!("{path}[{key}={name}]");
                let merged = merge_map(found, wanted, place.of_element(), &below)?;
                present[at] = Value::Object(merged);
            }
            None => {
                places.insert(name, present.len());
                present.push(Value::Object(cleaned_fields(wanted)));
            }
        }
    }
    Ok(present)
}

fn is_directive(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some()
}

/// A value of the patch as it gets into the object: without `null` and without directives.
/// `None`: it was nothing but a directive.
fn cleaned(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => Some(Value::Object(cleaned_fields(fields))),
        Value::Array(items) => Some(Value::Array(cleaned_list(items))),
        value => Some(value),
    }
}

fn cleaned_fields(fields: Fields) -> Fields {
    let is_ours = |name: &str| {
        name == RETAIN_KEYS || name.starts_with(DELETE_SCALARS) || name.starts_with(ELEMENT_ORDER)
    };
    let fields = fields.into_iter();
    fields
        .filter(|(name, value)| !value.is_null() && !is_ours(name))
        .filter_map(|(name, value)| Some((name, cleaned(value)?)))
        .gathered()
}

fn cleaned_list(items: Vec<Value>) -> Vec<Value> {
    items.into_iter().filter_map(cleaned).collect()
}
