//! Where the machine is: an address that changes under a running node, and a provider's metadata.

use std::fs;

use serde_json::Value;

use crate::isolation::{isolated, run};
use crate::support::{Node, eventually};

fn node_of(node: &Node) -> Value {
    node.list("nodes").into_iter().next().unwrap_or_default()
}

fn addresses(node: &Node) -> Vec<String> {
    let node = node_of(node);
    let list = node["status"]["addresses"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |address: &Value| {
        let part = |field: &str| address[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}", part("type"), part("address"))
    };
    list.iter().map(text).collect()
}

#[test]
fn the_node_follows_its_address_and_says_what_its_provider_knows() {
    isolated(|place| {
        let ip = |line: &str| run("ip", &line.split(' ').collect::<Vec<_>>());
        ip("link add uplink type veth peer name router");
        ip("link set uplink up");
        ip("link set router up");
        ip("address add 198.51.100.7/24 dev uplink");
        ip("route add default via 198.51.100.1");
        let metadata = place.join("metadata.json");
        let mut node = Node::new(place).flag(&format!("--cloud-provider={}", metadata.display()));
        node.start();
        let first = ["InternalIP 198.51.100.7", "Hostname n"];
        eventually("the Node has the address", || addresses(&node) == first);

        // No way out for a while is no reason to forget; another way out is.
        ip("address flush dev uplink");
        ip("address add 203.0.113.9/24 dev uplink");
        ip("route add default via 203.0.113.1");
        let moved = ["InternalIP 203.0.113.9", "Hostname n"];
        eventually("the Node has the new address", || addresses(&node) == moved);
        assert!(
            !node.log().contains("address is [127.0.0.1]"),
            "{}",
            node.log()
        );

        // Metadata that come late are found.
        let text = r#"{"region": "north", "zone": "shop-7", "public-ipv4": "192.0.2.44"}"#;
        fs::write(&metadata, text).unwrap();
        let told = [
            "InternalIP 203.0.113.9",
            "ExternalIP 192.0.2.44",
            "Hostname n",
        ];
        eventually("the Node has the metadata's address", || {
            addresses(&node) == told
        });
        let labels = node_of(&node)["metadata"]["labels"].clone();
        assert_eq!(labels["topology.kubernetes.io/region"], "north");
        assert_eq!(labels["topology.kubernetes.io/zone"], "shop-7");
        assert_eq!(node.terminate(), Some(0), "{}", node.log());
        ip("link delete uplink");
        node.finish();
    });
}
