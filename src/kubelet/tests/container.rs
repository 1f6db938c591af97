//! Container configuration and security context.

use serde_json::{Value, json};

use super::{container, image, node, objects, pod};
use crate::kubelet::container_config::{ContainerContext, container_config, container_hash};
use crate::kubelet::facts::{RecursiveReadOnly, SeccompDefault};
use crate::kubelet::security::{check_non_root, security};
use crate::world::{MountSource, Propagation, Seccomp};

fn configure(spec: Value) -> Result<crate::world::ContainerConfig, String> {
    let (objects, node) = (objects(), node());
    let context = ContainerContext {
        node: &node,
        references: &objects,
        pod_ips: &[],
        services: &[],
    };
    let pod = pod(spec);
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    container_config(&pod, container, 2, &image(""), &context).map_err(|error| {
        assert_eq!(error.reason, "CreateContainerConfigError");
        error.message
    })
}

#[test]
fn a_container_is_resolved_with_mounts_and_words() {
    let config = configure(json!({
        "volumes": [
            {"name": "data", "emptyDir": {}},
            {"name": "conf", "configMap": {"name": "settings"}},
            {"name": "host", "hostPath": {"path": "/srv"}},
        ],
        "containers": [{
            "name": "c",
            "image": "i:1",
            "command": ["sh", "-c", "$(V) $(W)"],
            "env": [{"name": "V", "value": "1"}],
            "volumeMounts": [
                {"name": "data", "mountPath": "/data", "subPathExpr": "a/$(V)"},
                {"name": "conf", "mountPath": "/conf"},
                {"name": "host", "mountPath": "/srv", "readOnly": true,
                 "mountPropagation": "HostToContainer"},
            ],
        }],
    }))
    .expect("resolves");
    assert_eq!(config.command, ["sh", "-c", "1 $(W)"]);
    assert_eq!((config.attempt, config.oom_score_adj), (2, 1000));
    assert_eq!(config.termination_message_path, "/dev/termination-log");
    let [data, conf, host] = &config.mounts[..] else {
        panic!("three mounts")
    };
    let sub_path = Some("a/1".to_owned());
    assert_eq!(
        data.source,
        MountSource::Volume {
            name: "data".to_owned(),
            sub_path
        }
    );
    assert!(!data.read_only && conf.read_only && host.read_only);
    assert_eq!(
        host.source,
        MountSource::HostPath {
            path: "/srv".to_owned(),
            sub_path: None
        }
    );
    assert_eq!(host.propagation, Propagation::HostToContainer);
}

#[test]
fn mounts_that_cannot_work_say_why() {
    for (mount, expected) in [
        (
            json!({"name": "x"}),
            "cannot find volume \"x\" to mount into container \"c\"",
        ),
        (
            json!({"subPath": "/abs"}),
            "error SubPath `/abs` must not be an absolute path",
        ),
        (
            json!({"subPath": "a/../../b"}),
            "unable to provision SubPath `a/../../b`: must not contain '..'",
        ),
        (json!({"subPathExpr": "$(NO)"}), "missing value for \"NO\""),
        (
            json!({"mountPropagation": "Bidirectional"}),
            "only to privileged containers",
        ),
        (
            json!({"readOnly": true, "recursiveReadOnly": "Enabled"}),
            "not supported by the runtime",
        ),
    ] {
        let mut mount = mount;
        mount["mountPath"] = json!("/m");
        if mount.get("name").is_none() {
            mount["name"] = json!("v");
        }
        let spec = json!({
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "volumeMounts": [mount]}],
        });
        let error = configure(spec).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_hash_is_that_of_image_and_name_only() {
    let base = container(json!({"image": "busybox:1.36"}));
    let same = container(json!({"image": "busybox:1.36", "command": ["x"]}));
    let other = container(json!({"image": "busybox:1.37"}));
    // FNV-32a of {"image":"busybox:1.36","name":"c"}, worked out apart from this code.
    assert_eq!(container_hash(&base), "6cebe6e0");
    assert_eq!(container_hash(&base), container_hash(&same));
    assert_ne!(container_hash(&base), container_hash(&other));
}

#[test]
fn security_of_the_container_wins_over_the_pods() {
    let pod = pod(json!({"securityContext": {
        "runAsUser": 1, "runAsGroup": 2, "runAsNonRoot": true, "fsGroup": 3,
        "supplementalGroups": [4], "seccompProfile": {"type": "RuntimeDefault"},
    }}));
    let own = container(json!({"securityContext": {
        "runAsUser": 7, "runAsNonRoot": false, "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true, "capabilities": {"drop": ["all"]},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"},
    }}));
    let merged = security(&pod, &own, SeccompDefault::Unconfined).expect("merges");
    assert_eq!(
        (merged.run_as_user, merged.run_as_group),
        (Some(7), Some(2))
    );
    assert!(!merged.run_as_non_root && merged.no_new_privileges && merged.read_only_root);
    assert_eq!(
        (merged.fs_group, &merged.supplemental_groups[..]),
        (Some(3), &[4][..])
    );
    assert_eq!(merged.capabilities.drop, ["ALL"]);
    assert_eq!(merged.seccomp, Seccomp::Localhost("a/b.json".to_owned()));
    let plain = security(&pod, &container(json!({})), SeccompDefault::Unconfined).expect("merges");
    assert_eq!(
        (plain.run_as_user, plain.seccomp),
        (Some(1), Seccomp::RuntimeDefault)
    );
}

#[test]
fn seccomp_names_are_checked_and_defaulted() {
    let empty = pod(json!({}));
    let with = |profile: Value| {
        let own = container(json!({"securityContext": {"seccompProfile": profile}}));
        security(&empty, &own, SeccompDefault::RuntimeDefault).map(|s| s.seccomp)
    };
    let unset = security(
        &empty,
        &container(json!({})),
        SeccompDefault::RuntimeDefault,
    );
    assert_eq!(unset.map(|s| s.seccomp), Ok(Seccomp::RuntimeDefault));
    assert_eq!(with(json!({"type": "Unconfined"})), Ok(Seccomp::Unconfined));
    for profile in [
        json!({"type": "Localhost"}),
        json!({"type": "Localhost", "localhostProfile": ""}),
        json!({"type": "Localhost", "localhostProfile": "/etc/passwd"}),
        json!({"type": "Localhost", "localhostProfile": "a/../../b"}),
        json!({"type": "Other"}),
    ] {
        assert!(with(profile.clone()).is_err(), "{profile}");
    }
    let unmasked = container(json!({"securityContext": {"procMount": "Unmasked"}}));
    assert!(security(&empty, &unmasked, SeccompDefault::Unconfined).is_err());
}

#[test]
fn a_non_root_container_is_checked_against_pod_and_image() {
    let pod = pod(json!({}));
    for (run_as_user, image_user, expected) in [
        (Some(1000), "", None),
        (
            Some(0),
            "1000",
            Some("container's runAsUser breaks non-root policy"),
        ),
        (None, "1000", None),
        (None, "1000:0", None),
        (
            None,
            "",
            Some("container has runAsNonRoot and image will run as root"),
        ),
        (
            None,
            "0:5",
            Some("container has runAsNonRoot and image will run as root"),
        ),
        (
            None,
            "app:5",
            Some("image has non-numeric user (app), cannot verify user is non-root"),
        ),
    ] {
        let mut context = json!({"runAsNonRoot": true});
        if let Some(user) = run_as_user {
            context["runAsUser"] = json!(user);
        }
        let own = container(json!({"securityContext": context}));
        let merged = security(&pod, &own, SeccompDefault::Unconfined).expect("merges");
        let outcome = check_non_root(&pod, "c", &merged, image_user);
        match (&outcome, expected) {
            (Ok(()), None) => {}
            (Err(text), Some(part)) => {
                let place = "(pod: \"web_default(0a1b)\", container: c)";
                assert!(text.contains(part) && text.ends_with(place), "{text}");
            }
            _ => panic!("{run_as_user:?} {image_user:?}: {outcome:?}"),
        }
    }
}

#[test]
fn recursive_read_only_follows_what_the_runtime_can() {
    let (objects, mut node) = (objects(), node());
    let pod = pod(json!({
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/m",
            "readOnly": true, "recursiveReadOnly": "IfPossible"}]}],
    }));
    for (support, expected) in [
        (RecursiveReadOnly::Unsupported, false),
        (RecursiveReadOnly::Supported, true),
    ] {
        node.recursive_read_only = support;
        let context = ContainerContext {
            node: &node,
            references: &objects,
            pod_ips: &[],
            services: &[],
        };
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let config = container_config(&pod, container, 0, &image(""), &context).expect("resolves");
        assert_eq!(config.mounts[0].recursive_read_only, expected);
    }
}
