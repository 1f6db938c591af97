//! Rules of the design that live in no single module, each as a test that fails without it.

use std::rc::Rc;

use lowtide::kubelet::core::OwnOrigin;
use lowtide::kubelet::facts::References;
use lowtide::object::{Key, Kind, Origin, Source};
use lowtide::os::clock::SystemClock;
use lowtide::os::random::SystemRandom;
use lowtide::registry::{Incoming, Limits, Options, Place, Registry};
use serde_json::json;

/// Settings of the service, in order; sections and comments left out.
fn service() -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/lowtide.service");
    let text = std::fs::read_to_string(path).expect("the service is part of the repository");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn has(name: &str, value: &str) -> bool {
    let settings = service();
    settings.iter().any(|(n, v)| n == name && v == value)
}

#[test]
fn the_service_lets_pods_outlive_the_agent() {
    for (name, value) in [
        ("KillMode", "process"),
        ("OOMPolicy", "continue"),
        ("Delegate", "yes"),
        ("RuntimeDirectoryPreserve", "yes"),
        ("Type", "notify"),
    ] {
        assert!(has(name, value), "{name}={value} is missing");
    }
}

/// Source: systemd.exec(5). The first group gives the unit a mount namespace: the next agent could
/// not see what the last one mounted. The second is inherited by every process of every pod.
#[test]
fn the_service_has_no_mount_namespace_and_nothing_that_pods_would_inherit() {
    let mount_namespace = [
        "PrivateTmp",
        "PrivateDevices",
        "PrivateMounts",
        "PrivateUsers",
        "PrivateNetwork",
        "ProtectSystem",
        "ProtectHome",
        "ProtectProc",
        "ProtectControlGroups",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectHostname",
        "ReadOnlyPaths",
        "ReadWritePaths",
        "InaccessiblePaths",
        "BindPaths",
        "BindReadOnlyPaths",
        "TemporaryFileSystem",
        "RootDirectory",
        "DynamicUser",
    ];
    let inherited = [
        "SystemCallFilter",
        "SystemCallArchitectures",
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "CapabilityBoundingSet",
    ];
    for (name, value) in service() {
        assert!(
            !mount_namespace.contains(&name.as_str()) && !inherited.contains(&name.as_str()),
            "{name}={value}"
        );
    }
    assert!(!has("NoNewPrivileges", "yes"));
}

/// A config map `settings` whose `data.from` says where it comes from.
fn settings(origin: Origin, from: &str) -> Incoming {
    Incoming::Object {
        key: Key {
            origin,
            ..Key::local(Kind::ConfigMap, "default", "settings")
        },
        provenance: None,
        body: json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "default"},
            "data": {"from": from},
        }),
        lines: Default::default(),
    }
}

async fn registry(directory: &std::path::Path) -> Registry {
    let options = Options {
        place: Place::Root {
            directory: directory.to_owned(),
            key_credential: None,
        },
        node_name: "pi".to_owned(),
        clock: Rc::new(SystemClock::new().unwrap()),
        random: Rc::new(SystemRandom),
        limits: Limits::default(),
        encryption: Default::default(),
        admission: Vec::new(),
    };
    Registry::open(options).await.unwrap().0
}

#[test]
fn references_of_a_pod_resolve_within_its_own_origin() {
    let directory = tempfile::tempdir().unwrap();
    async_io::block_on(async {
        let registry = registry(directory.path()).await;
        let local = vec![settings(Origin::Local, "local")];
        registry.replace(Source::File, local).await.unwrap();
        let seen = |origin: Origin| {
            let own = OwnOrigin::new(registry.reader(), origin);
            let found = own.config_map("default", "settings")?;
            Some(found.body["data"]["from"].as_str()?.to_owned())
        };
        assert_eq!(seen(Origin::Local).as_deref(), Some("local"));
        assert_eq!(seen(Origin::Remote), None);
        let remote = vec![settings(Origin::Remote, "remote")];
        registry.replace(Source::Remote, remote).await.unwrap();
        assert_eq!(seen(Origin::Local).as_deref(), Some("local"));
        assert_eq!(seen(Origin::Remote).as_deref(), Some("remote"));
        // Absence counts within the source that stated it, and nowhere else.
        registry.replace(Source::File, vec![]).await.unwrap();
        assert_eq!(seen(Origin::Local), None);
        assert_eq!(seen(Origin::Remote).as_deref(), Some("remote"));
    });
}
