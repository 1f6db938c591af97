//! Sets of fields as `fieldsV1` writes them. Pure.
//!
//! An element of a path is kept as it is written: `f:NAME` a member, `k:{..}` an element of a list
//! with keys, `v:..` an element of a set, `i:N` an index. `.` says that the path itself is in the set,
//! beside what is below it. Source: sigs.k8s.io/structured-merge-diff, fieldpath/serialize.go.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::object::gather::Gather;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(BTreeMap<String, Node>);

/// One path element. Never neither a member nor with anything below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

/// `f:NAME`
pub fn field(name: &str) -> String {
    format!("f:{name}")
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A set of members of members, given as `metadata.name`.
    pub fn of_fields(paths: &[&str]) -> Set {
        let mut set = Set::default();
        for path in paths {
            let path: Vec<String> = path.split('.').map(field).collect();
            set.insert(&path);
        }
        set
    }

    /// The empty path is in no set.
    pub fn insert(&mut self, path: &[String]) {
        match path {
            [] => {}
            [last] => self.0.entry(last.clone()).or_default().member = true,
            [first, rest @ ..] => self.0.entry(first.clone()).or_default().below.insert(rest),
        }
    }

    /// Whether the path of this one element is in the set.
    pub fn has(&self, element: &str) -> bool {
        self.0.get(element).is_some_and(|node| node.member)
    }

    pub fn has_path(&self, path: &[String]) -> bool {
        match path {
            [] => false,
            [last] => self.has(last),
            [first, rest @ ..] => self.below(first).is_some_and(|below| below.has_path(rest)),
        }
    }

    /// What is below an element.
    pub fn below(&self, element: &str) -> Option<&Set> {
        let node = self.0.get(element)?;
        (!node.below.is_empty()).then_some(&node.below)
    }

    pub fn union(&self, other: &Set) -> Set {
        let mut both = self.clone();
        for (element, node) in &other.0 {
            let own = both.0.entry(element.clone()).or_default();
            own.member |= node.member;
            own.below = own.below.union(&node.below);
        }
        both
    }

    pub fn intersection(&self, other: &Set) -> Set {
        self.combine(&|element, node| {
            let other = other.0.get(element)?;
            Some(Node {
                member: node.member && other.member,
                below: node.below.intersection(&other.below),
            })
        })
    }

    /// Without the paths of `other`; what is below them stays.
    pub fn difference(&self, other: &Set) -> Set {
        self.combine(&|element, node| match other.0.get(element) {
            None => Some(node.clone()),
            Some(other) => Some(Node {
                member: node.member && !other.member,
                below: node.below.difference(&other.below),
            }),
        })
    }

    /// Without the paths of `other` and all that is below them.
    pub fn without_trees(&self, other: &Set) -> Set {
        self.combine(&|element, node| match other.0.get(element) {
            None => Some(node.clone()),
            Some(other) if other.member => None,
            Some(other) => Some(Node {
                member: node.member,
                below: node.below.without_trees(&other.below),
            }),
        })
    }

    /// The same with all members of maps on the way to a path: who holds a map's member holds the
    /// map. Elements of lists are not added.
    pub fn with_parents(&self) -> Set {
        self.combine(&|element, node| {
            Some(Node {
                member: node.member || element.starts_with("f:") && !node.below.is_empty(),
                below: node.below.with_parents(),
            })
        })
    }

    fn combine(&self, one: &dyn Fn(&str, &Node) -> Option<Node>) -> Set {
        let nodes = self.0.iter().filter_map(|(element, node)| {
            let node = one(element, node).filter(|node| !node.is_empty())?;
            Some((element.clone(), node))
        });
        Set(nodes.gathered())
    }

    /// All paths, parents before what is below.
    pub fn paths(&self) -> Vec<Vec<String>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, at: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
        for (element, node) in &self.0 {
            at.push(element.clone());
            if node.member {
                paths.push(at.clone());
            }
            node.below.collect(at, paths);
            at.pop();
        }
    }

    /// `fieldsV1`
    pub fn json(&self) -> Value {
        let nodes = self.0.iter().map(|(element, node)| {
            let mut below = node.below.json();
            if node.member && !node.below.is_empty() {
                below["."] = json!({});
            }
            (element.clone(), below)
        });
        Value::Object(nodes.gathered())
    }

    /// `None` for what is no `fieldsV1`. Elements of unknown kinds are left out.
    pub fn parse(fields: &Value) -> Option<Set> {
        let mut set = Set::default();
        for (element, below) in fields.as_object()? {
            let Some(element) = canonical(element)? else {
                continue;
            };
            let node = Node {
                member: below.get(".").is_some() || below.as_object()?.is_empty(),
                below: Set::parse(below)?,
            };
            if !node.is_empty() {
                set.0.insert(element, node);
            }
        }
        Some(set)
    }
}

/// An element with its JSON as we would write it. `None`: malformed; `Some(None)`: not a kind of
/// element that we know.
fn canonical(element: &str) -> Option<Option<String>> {
    if element == "." {
        return Some(None);
    }
    let (kind, rest) = element.split_once(':')?;
    Some(match kind {
        "f" => Some(element.to_owned()),
        "i" => {
            let index: i64 = rest.parse().ok()?;
            Some(format!("i:{index}"))
        }
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).ok()?;
            Some(format!("k:{}", Value::Object(keys)))
        }
        "v" => {
            let value: Value = serde_json::from_str(rest).ok()?;
            Some(format!("v:{value}"))
        }
        _ => None,
    })
}

/// A path as people read it: `.spec.containers[name="web"].image`.
pub fn path_text(path: &[String]) -> String {
    path.iter().map(|element| element_text(element)).collect()
}

pub fn element_text(element: &str) -> String {
    match element.split_at(2) {
        ("f:", name) => format!(".{name}"),
        ("k:", keys) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys = keys.iter().map(|(name, value)| format!("{name}={value}"));
            format!("[{}]", keys.collect::<Vec<_>>().join(","))
        }
        ("v:", value) => format!("[={value}]"),
        (_, index) => format!("[{index}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_they_were_read() {
        let table = [
            json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}),
            json!({"f:spec": {"f:containers": {
                "k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:ports": {
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
                }},
            }}}),
            json!({"f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}}}),
            json!({}),
        ];
        for fields in table {
            assert_eq!(Set::parse(&fields).map(|set| set.json()), Some(fields));
        }
        let spaced = json!({"k:{ \"b\": 1, \"a\": 2 }": {}});
        let written = json!({"k:{\"a\":2,\"b\":1}": {}});
        assert_eq!(Set::parse(&spaced).map(|set| set.json()), Some(written));
        for malformed in [
            json!([]),
            json!({"f": {}}),
            json!({"k:[": {}}),
            json!({"f:a": 1}),
        ] {
            assert_eq!(Set::parse(&malformed), None, "{malformed}");
        }
    }

    #[test]
    fn a_path_and_what_is_below_are_two_things() {
        let set = |paths| Set::of_fields(paths);
        let (both, parent) = (set(&["a", "a.b", "a.c"]), set(&["a"]));
        assert_eq!(both.difference(&parent), set(&["a.b", "a.c"]));
        assert_eq!(both.without_trees(&parent), Set::default());
        assert_eq!(both.intersection(&set(&["a.b", "x"])), set(&["a.b"]));
        assert_eq!(set(&["a.b"]).union(&set(&["a.c", "a"])), both);
        assert_eq!(set(&["a.b.c"]).with_parents(), set(&["a", "a.b", "a.b.c"]));
    }

    #[test]
    fn paths_read_as_upstream_prints_them() {
        let fields = json!({"f:spec": {"f:containers": {
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}, "f:l": {"v:\"x\"": {}}}});
        let texts: Vec<String> = Set::parse(&fields)
            .expect("fieldsV1")
            .paths()
            .iter()
            .map(|path| path_text(path))
            .collect();
        assert_eq!(
            texts,
            [
                ".spec.containers[containerPort=80,protocol=\"TCP\"].name",
                ".spec.l[=\"x\"]"
            ]
        );
    }
}
