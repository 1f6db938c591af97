//! The order of a merged list: what the patch says first, then what the object had. Pure.
//!
//! Lookups go through an index, so that two long lists cost no product of their lengths.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::object::order::sort_by_key;
use crate::object::schema::Patch;

/// What tells elements of a list apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity<'a> {
    Itself,
    Member(&'a str),
}

impl Identity<'_> {
    pub fn of(patch: Patch) -> Identity<'static> {
        match patch {
            Patch::Merge(key) | Patch::MergeRetainKeys(key) => Identity::Member(key),
            Patch::Replace | Patch::MergeScalars => Identity::Itself,
        }
    }

    /// As text; `None` for an element without the member.
    fn text(self, item: &Value) -> Option<String> {
        match self {
            Identity::Itself => Some(item.to_string()),
            Identity::Member(key) => item.get(key).map(Value::to_string),
        }
    }
}

/// Where each element first stands.
pub fn index(items: &[Value], identity: Identity) -> BTreeMap<String, usize> {
    let mut places = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        if let Some(text) = identity.text(item) {
            places.entry(text).or_insert(at);
        }
    }
    places
}

/// Each element once, where it first stands.
pub fn unique(mut items: Vec<Value>, identity: Identity) -> Vec<Value> {
    let mut seen = BTreeSet::new();
    items.retain(|item| identity.text(item).is_none_or(|text| seen.insert(text)));
    items
}

/// Whether the elements of `items` stand in `order`, in the same order.
pub fn agrees(
    items: &[Value],
    order: &[Value],
    identity: Identity,
    is_exempt: &dyn Fn(&Value) -> bool,
) -> bool {
    // An empty order states nothing.
    if order.is_empty() {
        return true;
    }
    let mut rest = order.iter().map(|item| identity.text(item));
    items.iter().filter(|item| !is_exempt(item)).all(|item| {
        let text = identity.text(item);
        text.is_some() && rest.any(|other| other == text)
    })
}

/// `items`, those of `wanted` in its order, the others in that of `present`, and both interleaved
/// as they stood in `present`.
pub fn arrange(
    items: Vec<Value>,
    wanted: &[Value],
    present: &[Value],
    identity: Identity,
) -> Vec<Value> {
    let (wanted, present) = (index(wanted, identity), index(present, identity));
    let place = |order: &BTreeMap<String, usize>, item: &Value| {
        identity
            .text(item)
            .and_then(|text| order.get(&text).copied())
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = items
        .into_iter()
        .partition(|item| place(&wanted, item).is_some());
    sort_by_key(&mut named, |item| place(&wanted, item));
    sort_by_key(&mut others, |item| {
        place(&present, item).unwrap_or(usize::MAX)
    });
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        // One that stood before this one stays before it.
        if let Some(at) = place(&present, &item) {
            let before = |other: &Value| place(&present, other).is_some_and(|other| other < at);
            while let Some(other) = others.next_if(before) {
                arranged.push(other);
            }
        }
        arranged.push(item);
    }
    arranged.extend(others);
    arranged
}
