//! Rules of the design that live in no single module, each as a test that fails without it.

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
        ("SendSIGKILL", "no"),
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
