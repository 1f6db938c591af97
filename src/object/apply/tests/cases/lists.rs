//! The cases of lists with keys, in lists with keys too.

use super::{Apply, Case, Force, Refused, Update, check};

const A: &str = ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name";
const C: &str = ".spec.containers[name=\"c\"] .spec.containers[name=\"c\"].name";

const A_IMAGE: &str = ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name
                       .spec.containers[name=\"a\"].image";
const LISTS_WITH_KEYS: &[Case] = &[
    Case {
        name: "another element in place of the one",
        steps: &[
            Apply("one", "spec: {containers: [{name: b, image: '1'}]}"),
            Apply("one", "spec: {containers: [{name: a, image: '2'}]}"),
        ],
        object: "spec: {containers: [{name: a, image: '2'}]}",
        held: &[("one", A_IMAGE)],
    },
    Case {
        name: "one of two is left out",
        steps: &[
            Apply("one", "spec: {containers: [{name: a}, {name: b}]}"),
            Apply("two", "spec: {containers: [{name: c}]}"),
            Apply("one", "spec: {containers: [{name: a}]}"),
        ],
        object: "spec: {containers: [{name: a}, {name: c}]}",
        held: &[("one", A), ("two", C)],
    },
    Case {
        name: "the same value is no conflict",
        steps: &[
            Apply("one", "spec: {containers: [{name: a, image: '0'}]}"),
            Apply("two", "spec: {containers: [{name: a, image: '0'}]}"),
        ],
        object: "spec: {containers: [{name: a, image: '0'}]}",
        held: &[("one", A_IMAGE), ("two", A_IMAGE)],
    },
    Case {
        name: "another value is one",
        steps: &[
            Apply("one", "spec: {containers: [{name: a, image: '0'}]}"),
            Refused(
                "two",
                "spec: {containers: [{name: a, image: '1'}]}",
                "one:.spec.containers[name=\"a\"].image",
            ),
        ],
        object: "spec: {containers: [{name: a, image: '0'}]}",
        held: &[("one", A_IMAGE)],
    },
    Case {
        name: "what another holds too stays",
        steps: &[
            Apply(
                "one",
                "spec: {containers: [{name: a}, {name: b}, {name: c}]}",
            ),
            Apply("two", "spec: {containers: [{name: c}, {name: d}]}"),
            Apply("one", "spec: {containers: [{name: a}]}"),
        ],
        object: "spec: {containers: [{name: a}, {name: c}, {name: d}]}",
        held: &[
            ("one", A),
            (
                "two",
                ".spec.containers[name=\"c\"] .spec.containers[name=\"c\"].name
                     .spec.containers[name=\"d\"] .spec.containers[name=\"d\"].name",
            ),
        ],
    },
];

#[test]
fn lists_with_keys() {
    check(LISTS_WITH_KEYS);
}

const B: &str = ".spec.containers[name=\"b\"]
                 .spec.containers[name=\"b\"].name .spec.containers[name=\"b\"].image";
const TWICE: &str =
    "spec: {containers: [{name: a, image: '1'}, {name: a, image: '2'}, {name: b, image: '3'}]}";
const WHAT_STANDS_IN_A_LIST_WITH_KEYS_TWICE: &[Case] = &[
    Case {
        name: "is held as one, without its fields",
        steps: &[Update("one", TWICE)],
        object: TWICE,
        held: &[(
            "one",
            ".spec.containers[name=\"a\"] .spec.containers[name=\"b\"]
                 .spec.containers[name=\"b\"].name .spec.containers[name=\"b\"].image",
        )],
    },
    Case {
        name: "is whose who changed any of it",
        steps: &[
            Update("one", TWICE),
            Update(
                "two",
                "spec: {containers: [{name: a, image: '1'}, {name: a, image: '2', tty: true}, \
                     {name: b, image: '3'}]}",
            ),
        ],
        object: "spec: {containers: [{name: a, image: '1'}, {name: a, image: '2', tty: true}, \
                     {name: b, image: '3'}]}",
        held: &[("one", B), ("two", ".spec.containers[name=\"a\"]")],
    },
    Case {
        name: "is whose who added the second",
        steps: &[
            Update(
                "one",
                "spec: {containers: [{name: a, image: '1'}, {name: b, image: '3'}]}",
            ),
            Update("two", TWICE),
        ],
        object: TWICE,
        held: &[("one", B), ("two", ".spec.containers[name=\"a\"]")],
    },
    Case {
        name: "is left alone by an apply of something else",
        steps: &[Update("one", TWICE), Force("two", "spec: {hostname: s}")],
        object: "spec: {containers: [{name: a, image: '1'}, {name: a, image: '2'}, \
                     {name: b, image: '3'}], hostname: s}",
        held: &[
            (
                "one",
                ".spec.containers[name=\"a\"] .spec.containers[name=\"b\"]
                     .spec.containers[name=\"b\"].name .spec.containers[name=\"b\"].image",
            ),
            ("two", ".spec.hostname"),
        ],
    },
    Case {
        name: "is replaced by an apply, even of one of them",
        steps: &[
            Update("one", TWICE),
            Refused(
                "two",
                "spec: {containers: [{name: a, image: '2'}]}",
                "one:.spec.containers[name=\"a\"]",
            ),
            Force("two", "spec: {containers: [{name: a, image: '2'}]}"),
        ],
        object: "spec: {containers: [{name: a, image: '2'}, {name: b, image: '3'}]}",
        held: &[
            ("one", B),
            (
                "two",
                ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name
                     .spec.containers[name=\"a\"].image",
            ),
        ],
    },
    Case {
        name: "stays if its neighbour is applied",
        steps: &[
            Update("one", TWICE),
            Force("two", "spec: {containers: [{name: b, image: '4'}]}"),
        ],
        object: "spec: {containers: [{name: a, image: '1'}, {name: a, image: '2'}, \
                     {name: b, image: '4'}]}",
        held: &[
            (
                "one",
                ".spec.containers[name=\"a\"] .spec.containers[name=\"b\"]
                     .spec.containers[name=\"b\"].name",
            ),
            (
                "two",
                ".spec.containers[name=\"b\"] .spec.containers[name=\"b\"].name
                     .spec.containers[name=\"b\"].image",
            ),
        ],
    },
    Case {
        name: "is not removed by who applied it once",
        steps: &[
            Apply(
                "one",
                "spec: {containers: [{name: a, image: '1'}, {name: b, image: '3'}]}",
            ),
            Update("two", TWICE),
            Apply("one", "spec: {containers: [{name: b, image: '3'}]}"),
        ],
        object: TWICE,
        held: &[
            (
                "one",
                ".spec.containers[name=\"b\"] .spec.containers[name=\"b\"].name
                     .spec.containers[name=\"b\"].image",
            ),
            ("two", ".spec.containers[name=\"a\"]"),
        ],
    },
];

#[test]
fn what_stands_in_a_list_with_keys_twice() {
    check(WHAT_STANDS_IN_A_LIST_WITH_KEYS_TWICE);
}

const KEYS_WITH_DEFAULTS: &[Case] = &[
        Case {
            name: "the default is part of the key and no field",
            steps: &[Apply("one", "spec: {containers: [{name: a, ports: [{containerPort: 80}]}]}")],
            object: "spec: {containers: [{name: a, ports: [{containerPort: 80}]}]}",
            held: &[(
                "one",
                ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name
                 .spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"]
                 .spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
            )],
        },
        Case {
            name: "with and without it is the same element",
            steps: &[
                Apply(
                    "one",
                    "spec: {containers: [{name: a, ports: [{containerPort: 80, protocol: TCP, \
                     name: foo}]}]}",
                ),
                Refused(
                    "two",
                    "spec: {containers: [{name: a, ports: [{containerPort: 80, name: bar}]}]}",
                    "one:.spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"].name",
                ),
            ],
            object: "spec: {containers: [{name: a, ports: [{containerPort: 80, protocol: TCP, \
                     name: foo}]}]}",
            held: &[(
                "one",
                ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name
                 .spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"]
                 .spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"].containerPort
                 .spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"].protocol
                 .spec.containers[name=\"a\"].ports[containerPort=80,protocol=\"TCP\"].name",
            )],
        },
        Case {
            name: "a key without a default may be missing beside one that is there",
            steps: &[Apply(
                "one",
                "spec: {containers: [{name: a, ports: [{protocol: TCP, name: x}]}]}",
            )],
            object: "spec: {containers: [{name: a, ports: [{protocol: TCP, name: x}]}]}",
            held: &[(
                "one",
                ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name
                 .spec.containers[name=\"a\"].ports[protocol=\"TCP\"]
                 .spec.containers[name=\"a\"].ports[protocol=\"TCP\"].protocol
                 .spec.containers[name=\"a\"].ports[protocol=\"TCP\"].name",
            )],
        },
];

#[test]
fn keys_with_defaults() {
    check(KEYS_WITH_DEFAULTS);
}

const LISTS_AND_MAPS_WITHIN_ELEMENTS: &[Case] = &[
    Case {
        name: "other elements within the same",
        steps: &[
            Apply(
                "one",
                "spec: {containers: [{name: a, env: [{name: b}, {name: c}]}]}",
            ),
            Apply(
                "one",
                "spec: {containers: [{name: a, env: [{name: d}, {name: c}]}]}",
            ),
        ],
        object: "spec: {containers: [{name: a, env: [{name: d}, {name: c}]}]}",
        held: &[(
            "one",
            ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name
                 .spec.containers[name=\"a\"].env[name=\"c\"]
                 .spec.containers[name=\"a\"].env[name=\"c\"].name
                 .spec.containers[name=\"a\"].env[name=\"d\"]
                 .spec.containers[name=\"a\"].env[name=\"d\"].name",
        )],
    },
    Case {
        name: "other members within the same",
        steps: &[
            Apply(
                "one",
                "spec: {containers: [{name: a, resources: {limits: {b: '1', c: '1'}}}]}",
            ),
            Apply(
                "one",
                "spec: {containers: [{name: a, resources: {limits: {a: '1', c: '2'}}}]}",
            ),
        ],
        object: "spec: {containers: [{name: a, resources: {limits: {a: '1', c: '2'}}}]}",
        held: &[(
            "one",
            ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name
                 .spec.containers[name=\"a\"].resources.limits.a
                 .spec.containers[name=\"a\"].resources.limits.c",
        )],
    },
    Case {
        name: "one goes, what another put into its neighbour stays",
        steps: &[
            Apply(
                "one",
                "spec: {containers: [{name: a}, {name: c, env: [{name: x}]}]}",
            ),
            Apply("two", "spec: {containers: [{name: c, env: [{name: v}]}]}"),
            Apply("one", "spec: {containers: [{name: a}]}"),
        ],
        object: "spec: {containers: [{name: a}, {name: c, env: [{name: v}]}]}",
        held: &[
            ("one", A),
            (
                "two",
                ".spec.containers[name=\"c\"] .spec.containers[name=\"c\"].name
                     .spec.containers[name=\"c\"].env[name=\"v\"]
                     .spec.containers[name=\"c\"].env[name=\"v\"].name",
            ),
        ],
    },
    Case {
        name: "and what an update put there",
        steps: &[
            Apply(
                "one",
                "spec: {containers: [{name: a}, {name: c, env: [{name: x}]}]}",
            ),
            Apply("two", "spec: {containers: [{name: c, env: [{name: v}]}]}"),
            Update(
                "three",
                "spec: {containers: [{name: a}, {name: c, env: [{name: x}, {name: v}, {name: z}]}]}",
            ),
            Apply("one", "spec: {containers: [{name: a}]}"),
        ],
        object: "spec: {containers: [{name: a}, {name: c, env: [{name: v}, {name: z}]}]}",
        held: &[
            ("one", A),
            (
                "two",
                ".spec.containers[name=\"c\"] .spec.containers[name=\"c\"].name
                     .spec.containers[name=\"c\"].env[name=\"v\"]
                     .spec.containers[name=\"c\"].env[name=\"v\"].name",
            ),
            (
                "three",
                ".spec.containers[name=\"c\"].env[name=\"z\"]
                     .spec.containers[name=\"c\"].env[name=\"z\"].name",
            ),
        ],
    },
    Case {
        name: "but goes with the element that nobody else holds",
        steps: &[
            Apply(
                "one",
                "spec: {containers: [{name: a}, {name: c, env: [{name: x}]}]}",
            ),
            Apply("two", "spec: {containers: [{name: a, env: [{name: v}]}]}"),
            Update(
                "three",
                "spec: {containers: [{name: a, env: [{name: v}]}, \
                     {name: c, env: [{name: x}, {name: z}]}]}",
            ),
            Apply("one", "spec: {containers: [{name: a}]}"),
        ],
        object: "spec: {containers: [{name: a, env: [{name: v}]}]}",
        held: &[
            ("one", A),
            (
                "two",
                ".spec.containers[name=\"a\"] .spec.containers[name=\"a\"].name
                     .spec.containers[name=\"a\"].env[name=\"v\"]
                     .spec.containers[name=\"a\"].env[name=\"v\"].name",
            ),
        ],
    },
];

#[test]
fn lists_and_maps_within_elements() {
    check(LISTS_AND_MAPS_WITHIN_ELEMENTS);
}
