//! Upstream's cases (structured-merge-diff, merge/{leaf,set,key,nested,multiple_appliers,duplicates,
//! default_keys}_test.go) with the fields of pods in place of made-up types:
//!
//! ```text
//!   numeric, string, bool   spec.activeDeadlineSeconds, hostname, hostNetwork
//!   set                     metadata.finalizers
//!   associative list        spec.containers, by name; value: image
//!   list of lists           spec.containers, each with env
//!   list of maps            spec.containers, each with resources.limits
//!   struct, maps in maps    spec.securityContext, spec.affinity
//! ```

mod lists;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Contested, Story};
use crate::object::apply::set::{Set, path_text};
use crate::object::{Kind, yaml};

/// Who does what, with which fields in YAML.
enum Step {
    Apply(&'static str, &'static str),
    Force(&'static str, &'static str),
    Update(&'static str, &'static str),
    /// An apply that is refused, and the fields that it is for, each after its holder.
    Refused(&'static str, &'static str, &'static str),
}
use Step::{Apply, Force, Refused, Update};

struct Case {
    name: &'static str,
    steps: &'static [Step],
    object: &'static str,
    /// Managers and what they hold.
    held: &'static [(&'static str, &'static str)],
}

fn fields(text: &str) -> Value {
    match yaml::parse(text).expect(text) {
        Value::Null => serde_json::json!({}),
        value => value,
    }
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn holders(story: &Story) -> BTreeMap<String, BTreeSet<String>> {
    let entries = story.live()["metadata"]["managedFields"].as_array();
    let entry = |entry: &Value| {
        let set = Set::parse(&entry["fieldsV1"]).expect("fieldsV1");
        let paths = set.paths().iter().map(|path| path_text(path)).collect();
        (entry["manager"].as_str().expect("a name").to_owned(), paths)
    };
    entries.into_iter().flatten().map(entry).collect()
}

fn check(cases: &[Case]) {
    for case in cases {
        let name = case.name;
        let mut story = Story::new(Kind::Pod);
        for step in case.steps {
            match *step {
                Apply(who, text) => story.apply(who, fields(text)),
                Force(who, text) => story.force(who, fields(text)),
                Update(who, text) => story.put(who, fields(text)),
                Refused(who, text, why) => {
                    let attempt = story.attempt((who, ""), fields(text), Contested::Refuse);
                    let super::ApplyError::Conflicts(conflicts) = attempt.expect_err(name) else {
                        panic!("{name}: no conflict");
                    };
                    let told = conflicts.iter().map(|one| {
                        let holder = one.message.split('"').nth(1).unwrap_or_default();
                        format!("{holder}:{}", one.field)
                    });
                    assert_eq!(told.collect::<BTreeSet<_>>(), words(why), "{name}");
                }
            }
        }
        assert_eq!(story.fields(), fields(case.object), "{name}");
        let held = case.held.iter();
        let held = held.map(|(who, paths)| ((*who).to_owned(), words(paths)));
        assert_eq!(holders(&story), held.collect(), "{name}");
    }
}

const LEAVES: &[Case] = &[
    Case {
        name: "applied twice",
        steps: &[
            Apply("one", "spec: {activeDeadlineSeconds: 1, hostname: s}"),
            Apply(
                "one",
                "spec: {activeDeadlineSeconds: 2, hostname: s, hostNetwork: false}",
            ),
        ],
        object: "spec: {activeDeadlineSeconds: 2, hostname: s, hostNetwork: false}",
        held: &[(
            "one",
            ".spec.activeDeadlineSeconds .spec.hostname .spec.hostNetwork",
        )],
    },
    Case {
        name: "an update of another field is no conflict",
        steps: &[
            Apply("one", "spec: {activeDeadlineSeconds: 1, hostname: s}"),
            Update(
                "two",
                "spec: {activeDeadlineSeconds: 1, hostname: s, hostNetwork: true}",
            ),
            Apply("one", "spec: {activeDeadlineSeconds: 2, hostname: s}"),
        ],
        object: "spec: {activeDeadlineSeconds: 2, hostname: s, hostNetwork: true}",
        held: &[
            ("one", ".spec.activeDeadlineSeconds .spec.hostname"),
            ("two", ".spec.hostNetwork"),
        ],
    },
    Case {
        name: "an update of the same field is one",
        steps: &[
            Apply("one", "spec: {activeDeadlineSeconds: 1, hostname: s}"),
            Update(
                "two",
                "spec: {activeDeadlineSeconds: 1, hostname: t, hostNetwork: true}",
            ),
            Refused(
                "one",
                "spec: {activeDeadlineSeconds: 2, hostname: u}",
                "two:.spec.hostname",
            ),
            Force("one", "spec: {activeDeadlineSeconds: 2, hostname: u}"),
        ],
        object: "spec: {activeDeadlineSeconds: 2, hostname: u, hostNetwork: true}",
        held: &[
            ("one", ".spec.activeDeadlineSeconds .spec.hostname"),
            ("two", ".spec.hostNetwork"),
        ],
    },
    Case {
        name: "what is left out goes",
        steps: &[
            Apply(
                "one",
                "spec: {activeDeadlineSeconds: 1, hostname: s, hostNetwork: false}",
            ),
            Apply("one", "spec: {hostname: t}"),
        ],
        object: "spec: {hostname: t}",
        held: &[("one", ".spec.hostname")],
    },
    Case {
        name: "what another took meanwhile stays",
        steps: &[
            Apply("one", "spec: {activeDeadlineSeconds: 2}"),
            Update("two", "spec: {activeDeadlineSeconds: 1}"),
            Apply("one", ""),
        ],
        object: "spec: {activeDeadlineSeconds: 1}",
        held: &[("two", ".spec.activeDeadlineSeconds")],
    },
    Case {
        name: "who holds nothing is no manager",
        steps: &[
            Apply("one", "spec: {hostname: s}"),
            Update("two", "spec: {hostname: t}"),
        ],
        object: "spec: {hostname: t}",
        held: &[("two", ".spec.hostname")],
    },
    Case {
        name: "nothing is left",
        steps: &[Apply("one", "spec: {hostname: s}"), Apply("one", "")],
        object: "",
        held: &[],
    },
];

#[test]
fn leaves() {
    check(LEAVES);
}

const SETS: &[Case] = &[
    Case {
        name: "applied twice",
        steps: &[
            Apply("one", "metadata: {finalizers: [x/a, x/c]}"),
            Apply("one", "metadata: {finalizers: [x/a, x/b, x/c, x/d]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/b, x/c, x/d]}",
        held: &[(
            "one",
            ".metadata.finalizers[=\"x/a\"] .metadata.finalizers[=\"x/b\"]
                 .metadata.finalizers[=\"x/c\"] .metadata.finalizers[=\"x/d\"]",
        )],
    },
    Case {
        name: "new ones stand behind what they follow",
        steps: &[
            Apply("one", "metadata: {finalizers: [x/a, x/c]}"),
            Update("two", "metadata: {finalizers: [x/a, x/b, x/c, x/d]}"),
            Apply("one", "metadata: {finalizers: [x/a, x/a2, x/c, x/c2]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/b, x/a2, x/c, x/d, x/c2]}",
        held: &[
            (
                "one",
                ".metadata.finalizers[=\"x/a\"] .metadata.finalizers[=\"x/a2\"]
                     .metadata.finalizers[=\"x/c\"] .metadata.finalizers[=\"x/c2\"]",
            ),
            (
                "two",
                ".metadata.finalizers[=\"x/b\"] .metadata.finalizers[=\"x/d\"]",
            ),
        ],
    },
    Case {
        name: "an element is shared",
        steps: &[
            Apply("one", "metadata: {finalizers: [x/a, x/c]}"),
            Update("two", "metadata: {finalizers: [x/a, x/b, x/c, x/d]}"),
            Apply("one", "metadata: {finalizers: [x/a, x/b, x/c]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/b, x/c, x/d]}",
        held: &[
            (
                "one",
                ".metadata.finalizers[=\"x/a\"] .metadata.finalizers[=\"x/b\"]
                     .metadata.finalizers[=\"x/c\"]",
            ),
            (
                "two",
                ".metadata.finalizers[=\"x/b\"] .metadata.finalizers[=\"x/d\"]",
            ),
        ],
    },
    Case {
        name: "the order is the last applier's, and nobody's to hold",
        steps: &[
            Apply("one", "metadata: {finalizers: [x/a, x/b, x/c]}"),
            Update("two", "metadata: {finalizers: [x/c, x/b, x/a]}"),
            Apply("one", "metadata: {finalizers: [x/a, x/c, x/b]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/c, x/b]}",
        held: &[(
            "one",
            ".metadata.finalizers[=\"x/a\"] .metadata.finalizers[=\"x/b\"]
                 .metadata.finalizers[=\"x/c\"]",
        )],
    },
    Case {
        name: "what is left out goes",
        steps: &[
            Apply("one", "metadata: {finalizers: [x/a, x/b, x/c, x/d]}"),
            Apply("one", "metadata: {finalizers: [x/a, x/c, x/e]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/c, x/e]}",
        held: &[(
            "one",
            ".metadata.finalizers[=\"x/a\"] .metadata.finalizers[=\"x/c\"]
                 .metadata.finalizers[=\"x/e\"]",
        )],
    },
];

#[test]
fn sets() {
    check(SETS);
}

const WHAT_STANDS_IN_A_SET_TWICE: &[Case] = &[
    Case {
        name: "is held once",
        steps: &[Update("one", "metadata: {finalizers: [x/a, x/a, x/b]}")],
        object: "metadata: {finalizers: [x/a, x/a, x/b]}",
        held: &[(
            "one",
            ".metadata.finalizers .metadata.finalizers[=\"x/a\"] .metadata.finalizers[=\"x/b\"]",
        )],
    },
    Case {
        name: "is whose who wrote it again",
        steps: &[
            Update("one", "metadata: {finalizers: [x/a, x/b]}"),
            Update("two", "metadata: {finalizers: [x/a, x/a, x/b]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/a, x/b]}",
        held: &[
            ("one", ".metadata.finalizers .metadata.finalizers[=\"x/b\"]"),
            ("two", ".metadata.finalizers[=\"x/a\"]"),
        ],
    },
    Case {
        name: "is whose who took one away",
        steps: &[
            Update("one", "metadata: {finalizers: [x/a, x/a, x/b]}"),
            Update("two", "metadata: {finalizers: [x/a, x/b]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/b]}",
        held: &[
            ("one", ".metadata.finalizers .metadata.finalizers[=\"x/b\"]"),
            ("two", ".metadata.finalizers[=\"x/a\"]"),
        ],
    },
    Case {
        name: "is one after an apply",
        steps: &[
            Update("one", "metadata: {finalizers: [x/a, x/a, x/b]}"),
            Refused(
                "two",
                "metadata: {finalizers: [x/a]}",
                "one:.metadata.finalizers[=\"x/a\"]",
            ),
            Force("two", "metadata: {finalizers: [x/a]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/b]}",
        held: &[
            ("one", ".metadata.finalizers .metadata.finalizers[=\"x/b\"]"),
            ("two", ".metadata.finalizers[=\"x/a\"]"),
        ],
    },
    Case {
        name: "stays if others are applied",
        steps: &[
            Update("one", "metadata: {finalizers: [x/a, x/a, x/b]}"),
            Apply("two", "metadata: {finalizers: [x/c]}"),
        ],
        object: "metadata: {finalizers: [x/a, x/a, x/b, x/c]}",
        held: &[
            (
                "one",
                ".metadata.finalizers .metadata.finalizers[=\"x/a\"]
                     .metadata.finalizers[=\"x/b\"]",
            ),
            ("two", ".metadata.finalizers[=\"x/c\"]"),
        ],
    },
];

#[test]
fn what_stands_in_a_set_twice() {
    check(WHAT_STANDS_IN_A_SET_TWICE);
}

const TWO: (&str, &str) = ("two", ".spec.securityContext.runAsGroup");
const STRUCTS_AND_MAPS: &[Case] = &[
    Case {
        name: "all of it goes",
        steps: &[
            Apply(
                "one",
                "spec: {securityContext: {runAsUser: 1, runAsGroup: 1}}",
            ),
            Apply("one", ""),
        ],
        object: "",
        held: &[],
    },
    Case {
        name: "what an update put there stays",
        steps: &[
            Apply("one", "spec: {securityContext: {runAsUser: 1}}"),
            Update(
                "two",
                "spec: {securityContext: {runAsUser: 1, runAsGroup: 1}}",
            ),
            Apply("one", ""),
        ],
        object: "spec: {securityContext: {runAsGroup: 1}}",
        held: &[TWO],
    },
    Case {
        name: "also under an empty one",
        steps: &[
            Apply("one", "spec: {securityContext: {runAsUser: 1}}"),
            Update(
                "two",
                "spec: {securityContext: {runAsUser: 1, runAsGroup: 1}}",
            ),
            Apply("one", "spec: {securityContext: {}}"),
        ],
        object: "spec: {securityContext: {runAsGroup: 1}}",
        held: &[("one", ".spec.securityContext"), TWO],
    },
    Case {
        name: "also under none",
        steps: &[
            Apply("one", "spec: {securityContext: {runAsUser: 1}}"),
            Update(
                "two",
                "spec: {securityContext: {runAsUser: 1, runAsGroup: 1}}",
            ),
            Apply("one", "spec: {securityContext: null}"),
        ],
        object: "spec: {securityContext: {runAsGroup: 1}}",
        held: &[("one", ".spec.securityContext"), TWO],
    },
    Case {
        name: "and what it took",
        steps: &[
            Apply("one", "spec: {securityContext: {runAsUser: 1}}"),
            Update(
                "two",
                "spec: {securityContext: {runAsUser: 2, runAsGroup: 1}}",
            ),
            Apply("one", "spec: {securityContext: null}"),
        ],
        object: "spec: {securityContext: {runAsUser: 2, runAsGroup: 1}}",
        held: &[
            ("one", ".spec.securityContext"),
            (
                "two",
                ".spec.securityContext.runAsUser .spec.securityContext.runAsGroup",
            ),
        ],
    },
    Case {
        name: "a field that an update made, and an apply shares for a while",
        steps: &[
            Update(
                "two",
                "spec: {securityContext: {runAsUser: 1, runAsGroup: 1}}",
            ),
            Apply(
                "one",
                "spec: {securityContext: {runAsUser: 1, runAsGroup: 1}}",
            ),
            Apply("one", "spec: {securityContext: {runAsUser: 1}}"),
        ],
        object: "spec: {securityContext: {runAsUser: 1, runAsGroup: 1}}",
        held: &[
            ("one", ".spec.securityContext.runAsUser"),
            (
                "two",
                ".spec.securityContext .spec.securityContext.runAsUser
                     .spec.securityContext.runAsGroup",
            ),
        ],
    },
    Case {
        name: "a whole struct that two apply stays with the second",
        steps: &[
            Apply(
                "one",
                "spec: {hostname: s, securityContext: {seLinuxOptions: {level: b}}}",
            ),
            Apply(
                "two",
                "spec: {securityContext: {seLinuxOptions: {level: b}}}",
            ),
            Apply("one", "spec: {hostname: s}"),
        ],
        object: "spec: {hostname: s, securityContext: {seLinuxOptions: {level: b}}}",
        held: &[
            ("one", ".spec.hostname"),
            ("two", ".spec.securityContext.seLinuxOptions.level"),
        ],
    },
    Case {
        name: "who holds a part of a struct holds the way to it",
        steps: &[
            Apply(
                "one",
                "spec: {affinity: {nodeAffinity: {}}, securityContext: {seLinuxOptions: {}}}",
            ),
            Apply("two", "spec: {securityContext: {seLinuxOptions: {}}}"),
            Update(
                "three",
                "spec: {affinity: {nodeAffinity: {x: {}}}, \
                     securityContext: {seLinuxOptions: {level: b}}}",
            ),
            Apply("one", "spec: {affinity: {}}"),
        ],
        object: "spec: {affinity: {nodeAffinity: {x: {}}}, securityContext: {seLinuxOptions: {level: b}}}",
        held: &[
            ("one", ".spec.affinity"),
            ("two", ".spec.securityContext.seLinuxOptions"),
            (
                "three",
                ".spec.affinity.nodeAffinity.x .spec.securityContext.seLinuxOptions.level",
            ),
        ],
    },
];

#[test]
fn structs_and_maps() {
    check(STRUCTS_AND_MAPS);
}
