//! Walks over objects along the table of types: which fields are set, which differ, merged, removed.
//!
//! Source: sigs.k8s.io/structured-merge-diff, typed/{tofieldset,compare,merge,remove}.go. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::{Set, element_text, field};
use crate::object::gather::Gather;
use crate::object::schema::{List, Place, key_default};

/// How two objects differ. No path is in more than one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

/// What a value is at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One value, however large.
    Leaf,
    Map,
    Items,
    /// `null`, which takes the shape of what it is compared with.
    Null,
}

fn shape(value: &Value, place: Place) -> Shape {
    match value {
        Value::Null => Shape::Null,
        Value::Object(_) if !place.of.atomic => Shape::Map,
        Value::Array(_) if place.list != List::Atomic => Shape::Items,
        _ => Shape::Leaf,
    }
}

/// The one shape of both; different ones make a leaf.
fn common(left: Option<&Value>, right: Option<&Value>, place: Place) -> Shape {
    let (left, right) = (
        left.map(|v| shape(v, place)),
        right.map(|v| shape(v, place)),
    );
    match (left, right) {
        (None | Some(Shape::Null), Some(other)) | (Some(other), None | Some(Shape::Null)) => other,
        (Some(left), Some(right)) if left == right => left,
        _ => Shape::Leaf,
    }
}

fn members(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten()
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_bare(value: Option<&Value>) -> bool {
    members(value).next().is_none() && items(value).is_empty()
}

/// The path element of a list's element. Errors: it has no key, or is no scalar in a set.
fn element(list: List, item: &Value) -> Result<String, String> {
    match list {
        List::Set if item.is_object() || item.is_array() || item.is_null() => {
            Err("associative list without keys has an element that's no scalar".to_owned())
        }
        List::Set => Ok(format!("v:{item}")),
        List::Map(keys) => {
            let Value::Object(fields) = item else {
                let text = "associative list with keys may not have non-map elements";
                return Err(text.to_owned());
            };
            let value = |key: &str| match fields.get(key) {
                Some(value) => Some(value.clone()),
                None => key_default(key).map(Value::from),
            };
            let found = keys.iter().filter(|key| fields.contains_key(**key)).count();
            if found == 0 {
                return Err(format!(
                    "associative list with keys has an element that omits all key fields {keys:?} \
                     (and doesn't have default values for any key fields)"
                ));
            }
            let keys = keys
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), value(key)?)));
            Ok(format!("k:{}", Value::Object(keys.gathered())))
        }
        List::Atomic => unreachable!("an atomic list is never walked"),
    }
}

fn elements(list: List, items: &[Value], path: &[String]) -> Result<Vec<String>, String> {
    let named = items.iter().enumerate().map(|(index, item)| {
        element(list, item)
            .map_err(|text| format!("{}: element {index}: {text}", super::set::path_text(path)))
    });
    named.collect()
}

/// All leaves and list elements that `value` names. Errors: a list element without a key, or the
/// same twice.
pub fn field_set(value: &Value, place: Place) -> Result<Set, String> {
    let mut set = Set::default();
    walk_set(value, place, &mut Vec::new(), &mut set)?;
    Ok(set)
}

fn walk_set(
    value: &Value,
    place: Place,
    path: &mut Vec<String>,
    set: &mut Set,
) -> Result<(), String> {
    match shape(value, place) {
        Shape::Leaf | Shape::Null => set.insert(path),
        Shape::Map => {
            for (name, value) in members(Some(value)) {
                path.push(field(name));
                walk_set(value, place.field(name), path, set)?;
                if value.as_object().is_some_and(Map::is_empty) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Shape::Items => {
            let list = items(Some(value));
            let mut seen = BTreeSet::new();
            for (item, element) in list.iter().zip(elements(place.list, list, path)?) {
                if !seen.insert(element.clone()) {
                    let (path, key) = (super::set::path_text(path), element_text(&element));
                    return Err(format!("{path}: duplicate entries for key {key}"));
                }
                path.push(element);
                walk_set(item, place.of_element(), path, set)?;
                set.insert(path);
                path.pop();
            }
        }
    }
    Ok(())
}

/// The same of an object as it is: elements that stand there twice are one value each.
pub fn lenient_set(value: &Value, place: Place) -> Set {
    let mut set = Set::default();
    walk_lenient(value, place, &mut Vec::new(), &mut set);
    set
}

fn walk_lenient(value: &Value, place: Place, path: &mut Vec<String>, set: &mut Set) {
    match shape(value, place) {
        Shape::Leaf | Shape::Null => set.insert(path),
        Shape::Map => {
            for (name, value) in members(Some(value)) {
                path.push(field(name));
                walk_lenient(value, place.field(name), path, set);
                if value.as_object().is_some_and(Map::is_empty) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Shape::Items => {
            for item in items(Some(value)) {
                let Ok(element) = element(place.list, item) else {
                    continue;
                };
                path.push(element);
                walk_lenient(item, place.of_element(), path, set);
                set.insert(path);
                path.pop();
            }
        }
    }
}

/// From `left` to `right`. Errors: a list element without a key.
pub fn compare(left: &Value, right: &Value, place: Place) -> Result<Comparison, String> {
    let mut comparison = Comparison::default();
    let at = &mut Vec::new();
    walk_compare(Some(left), Some(right), place, at, &mut comparison)?;
    Ok(comparison)
}

fn walk_compare(
    left: Option<&Value>,
    right: Option<&Value>,
    place: Place,
    path: &mut Vec<String>,
    out: &mut Comparison,
) -> Result<(), String> {
    let shape = common(left, right, place);
    let is_leaf = matches!(shape, Shape::Leaf | Shape::Null) || is_bare(left) && is_bare(right);
    if left.is_none() {
        out.added.insert(path);
    } else if right.is_none() {
        out.removed.insert(path);
    } else if is_leaf && left != right {
        out.modified.insert(path);
    }
    if is_leaf {
        return Ok(());
    }
    if shape == Shape::Items {
        return compare_items(left, right, place, path, out);
    }
    let names: BTreeSet<&String> = members(left)
        .chain(members(right))
        .map(|(n, _)| n)
        .gathered();
    for name in names {
        let (left, right) = (
            left.and_then(|v| v.get(name)),
            right.and_then(|v| v.get(name)),
        );
        path.push(field(name));
        walk_compare(left, right, place.field(name), path, out)?;
        path.pop();
    }
    Ok(())
}

fn compare_items(
    left: Option<&Value>,
    right: Option<&Value>,
    place: Place,
    path: &mut Vec<String>,
    out: &mut Comparison,
) -> Result<(), String> {
    let group = |value: Option<&'_ Value>, path: &[String]| {
        let list = items(value);
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, element) in elements(place.list, list, path)?.into_iter().enumerate() {
            groups.entry(element).or_default().push(at);
        }
        Ok::<_, String>(groups)
    };
    let (lefts, rights) = (group(left, path)?, group(right, path)?);
    let names: BTreeSet<&String> = lefts.keys().chain(rights.keys()).gathered();
    for name in names {
        let take = |groups: &BTreeMap<String, Vec<usize>>, value| -> Vec<&Value> {
            let at = groups.get(name).into_iter().flatten();
            at.map(|at| &items(value)[*at]).collect()
        };
        let (l, r) = (take(&lefts, left), take(&rights, right));
        path.push(name.clone());
        // An element that stands there twice is one value.
        match (l.as_slice(), r.as_slice()) {
            ([] | [_], [] | [_]) => {
                let (l, r) = (l.first().copied(), r.first().copied());
                walk_compare(l, r, place.of_element(), path, out)?;
            }
            ([_, _, ..], [_, _, ..]) => {
                if l != r {
                    out.modified.insert(path);
                }
            }
            ([_, _, ..], one) => {
                if let [one] = one {
                    walk_compare(None, Some(one), place.of_element(), path, out)?;
                }
                out.removed.insert(path);
            }
            (one, [_, _, ..]) => {
                if let [one] = one {
                    walk_compare(Some(one), None, place.of_element(), path, out)?;
                }
                out.added.insert(path);
            }
        }
        path.pop();
    }
    Ok(())
}

/// `live` with what `applied` says; nothing is removed but what `applied` says is `null`.
/// Errors: a list element without a key.
pub fn merge(live: &Value, applied: &Value, place: Place) -> Result<Value, String> {
    let merged = walk_merge(Some(live), Some(applied), place, &mut Vec::new())?;
    Ok(merged.unwrap_or_else(|| Value::Object(Map::new())))
}

/// `None`: the field goes.
fn walk_merge(
    live: Option<&Value>,
    applied: Option<&Value>,
    place: Place,
    path: &mut Vec<String>,
) -> Result<Option<Value>, String> {
    let Some(wanted) = applied else {
        return Ok(live.cloned());
    };
    let shape = common(live, applied, place);
    if matches!(shape, Shape::Leaf | Shape::Null) || is_bare(live) && is_bare(applied) {
        return Ok(Some(wanted.clone()).filter(|wanted| !wanted.is_null()));
    }
    if shape == Shape::Items {
        return merge_items(items(live), items(applied), place, path).map(Some);
    }
    let mut merged = Map::new();
    let names: BTreeSet<&String> = members(live)
        .chain(members(applied))
        .map(|(n, _)| n)
        .gathered();
    for name in names {
        let (live, wanted) = (live.and_then(|v| v.get(name)), wanted.get(name));
        path.push(field(name));
        if let Some(value) = walk_merge(live, wanted, place.field(name), path)? {
            merged.insert(name.clone(), value);
        }
        path.pop();
    }
    Ok(Some(Value::Object(merged)))
}

/// Elements of both in the order of `applied`; those that only `live` has stay behind what stood
/// before them, as far as that order allows.
fn merge_items(
    live: &[Value],
    applied: &[Value],
    place: Place,
    path: &mut Vec<String>,
) -> Result<Value, String> {
    let live_names = elements(place.list, live, path)?;
    let names = elements(place.list, applied, path)?;
    let wanted: BTreeSet<&String> = names.iter().gathered();
    let mut first: BTreeMap<&String, Option<usize>> = BTreeMap::new();
    for (at, name) in live_names.iter().enumerate() {
        // One that stands there twice is replaced, not merged with.
        first
            .entry(name)
            .and_modify(|at| *at = None)
            .or_insert(Some(at));
    }
    let mut shared = names.iter().filter(|name| first.contains_key(name));
    let mut next_shared = shared.next();
    let (mut merged, mut done) = (Vec::new(), BTreeSet::new());
    let (mut at, mut applied_at) = (0, 0);
    while at < live.len() || applied_at < applied.len() {
        let (ours, theirs) = (live_names.get(at), names.get(applied_at));
        if let Some(ours) = ours {
            if !wanted.contains(ours) {
                merged.push(live[at].clone());
                at += 1;
                continue;
            }
            let out_of_order = next_shared.is_some_and(|next| next != ours);
            if done.contains(ours) || theirs.is_some_and(|theirs| theirs != ours) && out_of_order {
                at += 1;
                continue;
            }
        }
        let Some(name) = theirs else {
            break;
        };
        if ours == Some(name) {
            at += 1;
        }
        if next_shared == Some(name) {
            next_shared = shared.next();
        }
        path.push(name.clone());
        let found = first.get(name).copied().flatten().map(|at| &live[at]);
        let item = &applied[applied_at];
        merged.extend(walk_merge(found, Some(item), place.of_element(), path)?);
        path.pop();
        done.insert(name);
        applied_at += 1;
    }
    Ok(Value::Array(merged))
}

/// `value` without the paths of `gone`. What becomes empty because of paths below it stays, empty.
pub fn remove(value: &Value, gone: &Set, place: Place) -> Value {
    match shape(value, place) {
        Shape::Leaf | Shape::Null => value.clone(),
        Shape::Map => {
            let kept = members(Some(value)).filter_map(|(name, value)| {
                let element = field(name);
                let value = keep(value, gone, &element, place.field(name))?;
                Some((name.clone(), value))
            });
            Value::Object(kept.gathered())
        }
        Shape::Items => {
            let list = items(Some(value)).iter();
            let kept = list.filter_map(|item| match element(place.list, item) {
                Ok(element) => keep(item, gone, &element, place.of_element()),
                Err(_) => Some(item.clone()),
            });
            Value::Array(kept.collect())
        }
    }
}

fn keep(value: &Value, gone: &Set, element: &str, place: Place) -> Option<Value> {
    if gone.has(element) {
        return None;
    }
    Some(match gone.below(element) {
        Some(below) => remove(value, below, place),
        None => value.clone(),
    })
}
