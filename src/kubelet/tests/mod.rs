//! Tables for the pure cores; here is what they share: a node, a pod, the objects it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde::Deserialize;
use serde_json::{Value, json};

use super::facts::{Allocatable, NodeFacts, References};
use super::memory::{Health, Memory};
use super::settle_hooks;
use crate::object::{Key, Kind, Object, Quantity, Source, Standing};
use crate::world::{ContainerId, Image, ImageConfig, Uid};

mod container;
mod env;
mod records;
mod resources;
mod sandbox;
mod volumes;

#[derive(Default)]
struct Objects(BTreeMap<(Kind, String), Arc<Object>>);

impl Objects {
    fn with(mut self, kind: Kind, name: &str, body: Value) -> Objects {
        let object = Object {
            key: Key::local(kind, "default", name),
            source: Source::File,
            provenance: None,
            standing: Standing::Accepted,
            resource_version: 1,
            body,
        };
        self.0.insert((kind, name.to_owned()), Arc::new(object));
        self
    }

    fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Object>> {
        assert_eq!(namespace, "default");
        self.0.get(&(kind, name.to_owned())).cloned()
    }
}

impl References for Objects {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.find(Kind::ConfigMap, namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.find(Kind::Secret, namespace, name)
    }
}

fn objects() -> Objects {
    Objects::default()
        .with(
            Kind::ConfigMap,
            "settings",
            json!({"data": {"mode": "fast", "level": "3"}}),
        )
        // "hunter2", and two bytes that are no text
        .with(
            Kind::Secret,
            "login",
            json!({"data": {"password": "aHVudGVyMg==", "raw": "//4="}}),
        )
}

fn node() -> NodeFacts {
    NodeFacts {
        node_name: "pi".to_owned(),
        hostname: "pi-host".to_owned(),
        host_ips: vec!["192.0.2.1".parse().expect("an address")],
        allocatable: Allocatable {
            cpu: Quantity::from_units(4),
            memory: Quantity::from_units(1 << 30),
            ephemeral_storage: Quantity::from_units(10 << 30),
        },
        memory_bytes: 1 << 30,
        kernel: (6, 1),
        ..NodeFacts::default()
    }
}

fn pod(spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{ "name": "c" }]);
    }
    let value = json!({
        "metadata": {
            "name": "web",
            "namespace": "default",
            "uid": "0a1b",
            "labels": {"app": "web", "tier": "a\"b"},
        },
        "spec": spec,
    });
    Pod::deserialize(&value).expect("a pod")
}

fn container(value: Value) -> Container {
    let mut value = value;
    value["name"] = json!("c");
    Container::deserialize(&value).expect("a container")
}

fn image(user: &str) -> Image {
    Image {
        id: "sha256:00".to_owned(),
        tags: Vec::new(),
        digests: Vec::new(),
        size_bytes: 0,
        pinned: false,
        config: ImageConfig {
            user: user.to_owned(),
            ..ImageConfig::default()
        },
    }
}

#[test]
fn a_post_start_whose_agent_died_blocks_nothing_and_runs_no_second_time() {
    let mut memory = Memory::default();
    let health = |hook_begun: bool| Health {
        id: ContainerId("c0".into()),
        hook_begun,
        hook_done: false,
        pre_stop_begun: false,
        started: true,
        ready: true,
        condemned: None,
    };
    let known = &mut memory.checkpoint.health;
    known.insert("begun".to_owned(), health(true));
    known.insert("waits".to_owned(), health(false));
    settle_hooks(&mut memory, &Uid::new("u1").unwrap());
    assert!(memory.checkpoint.health["begun"].hook_done);
    assert!(!memory.checkpoint.health["waits"].hook_done);
}
