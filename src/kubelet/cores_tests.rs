//! Tables for the pure cores: environment, security, resources, DNS, sandbox, volumes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde::Deserialize;
use serde_json::{Value, json};

use super::container_config::{ContainerContext, container_config, container_hash};
use super::dns::pod_dns;
use super::env::{EnvContext, environment};
use super::facts::{Allocatable, NodeFacts, RecursiveReadOnly, References, SeccompDefault};
use super::resources::{container_resources, cpu_shares, oom_score_adj, pod_cgroup, qos_class};
use super::sandbox_config::{check_sysctls, sandbox_config};
use super::security::{check_non_root, security};
use super::volumes::volume_contents;
use crate::object::{Key, Kind, Object, Quantity, Source, Standing};
use crate::world::{
    FileMedium, Image, ImageConfig, MountSource, NamespaceMode, Propagation, QosClass, Seccomp,
    VolumeContent,
};

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

fn env_of(value: Value) -> Result<BTreeMap<String, String>, String> {
    let (objects, node) = (objects(), node());
    let ips: [IpAddr; 2] = [
        "10.88.0.5".parse().expect("v4"),
        "fd00::5".parse().expect("v6"),
    ];
    let services = [("KUBERNETES_SERVICE_HOST".to_owned(), "10.88.0.1".to_owned())];
    let context = EnvContext {
        node: &node,
        references: &objects,
        pod_ips: &ips,
        services: &services,
    };
    let pod = pod(json!({"serviceAccountName": "sa"}));
    Ok(environment(&pod, &container(value), &context)?
        .variables
        .into_iter()
        .collect())
}

#[test]
fn variables_resolve_in_upstreams_order() {
    let env = env_of(json!({
        "envFrom": [
            {"configMapRef": {"name": "settings"}},
            {"prefix": "S_", "secretRef": {"name": "login"}},
            {"configMapRef": {"name": "absent", "optional": true}},
        ],
        "env": [
            {"name": "mode", "value": "own"},
            {"name": "A", "value": "$(mode)-$(S_password)-$(LATER)-$$(mode)"},
            {"name": "LATER", "value": "x"},
            {"name": "HOST", "value": "$(KUBERNETES_SERVICE_HOST)"},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
            {"name": "NONE", "valueFrom":
                {"secretKeyRef": {"name": "login", "key": "absent", "optional": true}}},
        ],
    }))
    .expect("resolves");
    assert_eq!(env["mode"], "own");
    assert_eq!(env["A"], "own-hunter2-$(LATER)-$(mode)");
    assert_eq!(env["HOST"], "10.88.0.1");
    assert_eq!(env["KEY"], "3");
    assert!(!env.contains_key("NONE"));
    assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.88.0.1");
}

#[test]
fn missing_references_have_upstreams_texts() {
    for (source, expected) in [
        (
            json!({"configMapKeyRef": {"name": "x", "key": "k"}}),
            "configmap \"x\" not found",
        ),
        (
            json!({"secretKeyRef": {"name": "x", "key": "k"}}),
            "secret \"x\" not found",
        ),
        (
            json!({"configMapKeyRef": {"name": "settings", "key": "k"}}),
            "couldn't find key k in ConfigMap default/settings",
        ),
        (
            json!({"secretKeyRef": {"name": "login", "key": "k"}}),
            "couldn't find key k in Secret default/login",
        ),
        (
            json!({"fieldRef": {"fieldPath": "spec.nope"}}),
            "unsupported fieldPath: spec.nope",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.gpu"}}),
            "unsupported container resource : limits.gpu",
        ),
    ] {
        let outcome = env_of(json!({"env": [{"name": "A", "valueFrom": source}]}));
        assert_eq!(outcome, Err(expected.to_owned()));
    }
    let from = env_of(json!({"envFrom": [{"secretRef": {"name": "x"}}]}));
    assert_eq!(from, Err("secret \"x\" not found".to_owned()));
}

#[test]
fn fields_of_pod_and_resources_become_values() {
    for (source, expected) in [
        (json!({"fieldRef": {"fieldPath": "metadata.name"}}), "web"),
        (
            json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}}),
            "web",
        ),
        (
            json!({"fieldRef": {"fieldPath": "metadata.annotations['no']"}}),
            "",
        ),
        (json!({"fieldRef": {"fieldPath": "spec.nodeName"}}), "pi"),
        (
            json!({"fieldRef": {"fieldPath": "spec.serviceAccountName"}}),
            "sa",
        ),
        (
            json!({"fieldRef": {"fieldPath": "status.hostIP"}}),
            "192.0.2.1",
        ),
        (
            json!({"fieldRef": {"fieldPath": "status.podIP"}}),
            "10.88.0.5",
        ),
        (
            json!({"fieldRef": {"fieldPath": "status.podIPs"}}),
            "10.88.0.5,fd00::5",
        ),
        (json!({"resourceFieldRef": {"resource": "limits.cpu"}}), "2"),
        (
            json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}),
            "1500",
        ),
        (
            json!({"resourceFieldRef": {"resource": "requests.cpu"}}),
            "0",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.memory"}}),
            "1073741824",
        ),
        (
            json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}),
            "1024",
        ),
        (
            json!({"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}),
            "2",
        ),
    ] {
        let env = env_of(json!({
            "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "1048577"}},
            "env": [{"name": "A", "valueFrom": source}],
        }))
        .unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(env["A"], expected, "{source}");
    }
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

fn with_resources(regular: &[Value], init: &[Value]) -> Pod {
    let list = |all: &[Value], name: &str| -> Value {
        let numbered = all.iter().enumerate().map(|(at, value)| {
            let mut value = value.clone();
            value["name"] = json!(format!("{name}{at}"));
            value
        });
        numbered.collect()
    };
    pod(json!({"containers": list(regular, "c"), "initContainers": list(init, "i")}))
}

fn limits(cpu: &str, memory: &str) -> Value {
    json!({"resources": {"limits": {"cpu": cpu, "memory": memory}}})
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"resources": {"requests": {"cpu": cpu, "memory": memory}}})
}

#[test]
fn shares_follow_upstreams_integers() {
    for (milli, shares) in [
        (0, 2),
        (1, 2),
        (100, 102),
        (250, 256),
        (1000, 1024),
        (4000, 4096),
        (1_000_000, 262_144),
    ] {
        assert_eq!(cpu_shares(milli), shares, "{milli}m");
    }
    let limited = container_resources(&container(limits("500m", "64Mi")));
    assert_eq!(
        limited.cpu_shares,
        Some(512),
        "a limit alone is the request too"
    );
    assert_eq!(
        (limited.cpu_quota_us, limited.cpu_period_us),
        (Some(50_000), Some(100_000))
    );
    assert_eq!(limited.memory_bytes_max, Some(64 << 20));
    let tiny = container_resources(&container(limits("1m", "1Mi")));
    assert_eq!(tiny.cpu_quota_us, Some(1000), "never below a millisecond");
}

#[test]
fn classes_and_pod_figures_follow_requests_and_limits() {
    let sidecar = |cpu: &str| {
        let mut value = requests(cpu, "1Mi");
        value["restartPolicy"] = json!("Always");
        value
    };
    let none = json!({});
    for (regular, init, class, shares, quota, memory) in [
        (
            vec![none.clone()],
            vec![],
            QosClass::BestEffort,
            2,
            None,
            None,
        ),
        (
            vec![requests("0", "0")],
            vec![],
            QosClass::BestEffort,
            2,
            None,
            None,
        ),
        (
            vec![limits("1", "1Mi")],
            vec![],
            QosClass::Guaranteed,
            1024,
            Some(100_000),
            Some(1 << 20),
        ),
        (
            vec![limits("1", "1Mi"), limits("1", "1Mi")],
            vec![limits("3", "1Mi")],
            QosClass::Guaranteed,
            3072,
            Some(300_000),
            Some(2 << 20),
        ),
        (
            vec![limits("1", "1Mi"), none.clone()],
            vec![],
            QosClass::Burstable,
            1024,
            None,
            None,
        ),
        (
            vec![limits("1", "1Mi")],
            vec![none.clone()],
            QosClass::Burstable,
            1024,
            None,
            None,
        ),
        (
            vec![requests("100m", "1Mi")],
            vec![],
            QosClass::Burstable,
            102,
            None,
            None,
        ),
        // Regular and sidecar together, against init after the sidecar.
        (
            vec![requests("1", "1Mi")],
            vec![sidecar("1")],
            QosClass::Burstable,
            2048,
            None,
            None,
        ),
        (
            vec![requests("1", "1Mi")],
            vec![sidecar("1"), requests("3", "1Mi")],
            QosClass::Burstable,
            4096,
            None,
            None,
        ),
        (
            vec![requests("1", "1Mi")],
            vec![requests("3", "1Mi"), sidecar("1")],
            QosClass::Burstable,
            3072,
            None,
            None,
        ),
    ] {
        let pod = with_resources(&regular, &init);
        let cgroup = pod_cgroup(&pod, Some(64));
        assert_eq!(
            (qos_class(&pod), cgroup.qos),
            (class, class),
            "{regular:?} {init:?}"
        );
        let figures = &cgroup.resources;
        assert_eq!(figures.cpu_shares, Some(shares), "{regular:?} {init:?}");
        assert_eq!(
            (figures.cpu_quota_us, figures.memory_bytes_max),
            (quota, memory)
        );
        assert_eq!(figures.pids_max, Some(64));
    }
}

#[test]
fn oom_scores_follow_class_and_memory() {
    let score = |pod: &Pod| {
        oom_score_adj(
            pod,
            &pod.spec.as_ref().expect("a spec").containers[0],
            1 << 30,
        )
    };
    for (resources, expected) in [
        (json!({}), 1000),
        (limits("1", "64Mi"), -997),
        (requests("1", "0"), 999),
        (requests("1", "512Mi"), 500),
        (requests("1", "2Gi"), 3),
    ] {
        assert_eq!(
            score(&with_resources(&[resources.clone()], &[])),
            expected,
            "{resources}"
        );
    }
    let critical = pod(json!({"priority": 2_000_001_000}));
    assert_eq!(score(&critical), -997);
    let mut sidecar = requests("1", "1Mi");
    sidecar["restartPolicy"] = json!("Always");
    let pod = with_resources(&[requests("1", "512Mi")], &[sidecar]);
    let spec = pod.spec.as_ref().expect("a spec");
    let init = &spec.init_containers.as_ref().expect("init")[0];
    assert_eq!(oom_score_adj(&pod, init, 1 << 30), 500);
}

#[test]
fn dns_follows_the_policy() {
    let mut settings = node().dns;
    settings.servers = vec!["10.96.0.10".to_owned()];
    settings.domain = "cluster.local".to_owned();
    settings.host_resolv_conf = Some(
        "# host\nnameserver 192.0.2.53\nsearch old\nsearch example.com. lan\noptions rotate\n"
            .to_owned(),
    );
    let cluster = "default.svc.cluster.local svc.cluster.local cluster.local example.com lan";
    for (spec, servers, searches, options) in [
        (json!({}), "10.96.0.10", cluster, "ndots:5"),
        (
            json!({"dnsPolicy": "Default"}),
            "192.0.2.53",
            "example.com lan",
            "rotate",
        ),
        (
            json!({"hostNetwork": true}),
            "192.0.2.53",
            "example.com lan",
            "rotate",
        ),
        (
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            "10.96.0.10",
            cluster,
            "ndots:5",
        ),
        (
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.1"]}}),
            "1.1.1.1",
            "",
            "",
        ),
        (
            json!({"dnsConfig": {"searches": ["lan", "x"], "nameservers": ["1.1.1.1"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            "10.96.0.10 1.1.1.1",
            &format!("{cluster} x"),
            "ndots:2 edns0",
        ),
    ] {
        let (dns, warnings) = pod_dns(&pod(spec.clone()), &settings);
        let lines = (
            dns.nameservers.join(" "),
            dns.searches.join(" "),
            dns.options.join(" "),
        );
        assert_eq!(
            lines,
            (servers.into(), searches.into(), options.into()),
            "{spec}"
        );
        assert_eq!(warnings, [], "{spec}");
    }
}

#[test]
fn dns_limits_and_missing_servers_are_reported() {
    let mut settings = node().dns;
    settings.host_resolv_conf = Some("nameserver 192.0.2.53\n".to_owned());
    let (dns, warnings) = pod_dns(&pod(json!({})), &settings);
    assert_eq!(dns.nameservers, ["192.0.2.53"]);
    assert_eq!(warnings[0].reason, "MissingClusterDNS");
    let searches: Vec<String> = (0..40)
        .map(|at| format!("d{at}.{}", "x".repeat(80)))
        .collect();
    let config = json!({"dnsPolicy": "None", "dnsConfig": {
        "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"], "searches": searches}});
    let (dns, warnings) = pod_dns(&pod(config), &settings);
    assert_eq!(dns.nameservers.len(), 3);
    assert!(dns.searches.len() < 32 && dns.searches.join(" ").len() <= 2048);
    assert!(warnings[0].message.ends_with("1.1.1.1 2.2.2.2 3.3.3.3"));
    assert_eq!(warnings.len(), 2);
    settings.host_resolv_conf = None;
    let (dns, _) = pod_dns(&pod(json!({"dnsPolicy": "Default"})), &settings);
    assert_eq!(
        (dns.nameservers, dns.searches),
        (vec!["127.0.0.1".into()], vec![".".into()])
    );
}

#[test]
fn a_sandbox_has_names_namespaces_and_ports() {
    let mut node = node();
    node.dns.domain = "cluster.local".to_owned();
    let plan = sandbox_config(
        &pod(json!({
            "subdomain": "db", "shareProcessNamespace": true,
            "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}],
            "containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080},
                {"containerPort": 81},
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"},
            ]}],
        })),
        3,
        &node,
    )
    .expect("a sandbox");
    let config = plan.config;
    assert_eq!((config.hostname.as_str(), config.attempt), ("web", 3));
    assert_eq!(
        config.domain.as_deref(),
        Some("db.default.svc.cluster.local")
    );
    assert_eq!(config.namespaces.pid, NamespaceMode::Pod);
    assert_eq!(config.ports.len(), 2);
    assert_eq!(config.host_aliases[0].hostnames, ["a", "b"]);
}

#[test]
fn host_names_are_cut_to_a_label_and_checked() {
    let long = format!("{}-.{}", "a".repeat(61), "b".repeat(20));
    for (spec, expected) in [
        (json!({"hostname": "own"}), Some("own".to_owned())),
        (json!({"hostname": long}), Some("a".repeat(61))),
        (json!({"hostNetwork": true}), Some("pi-host".to_owned())),
        (json!({"setHostnameAsFQDN": true}), Some("web".to_owned())),
        (
            json!({"setHostnameAsFQDN": true, "subdomain": "s"}),
            Some("web.s.default.svc".to_owned()),
        ),
        (
            json!({"setHostnameAsFQDN": true, "subdomain": "s".repeat(60)}),
            None,
        ),
        (
            json!({"containers": [{"name": "c", "ports": [
                {"containerPort": 1, "hostPort": 1, "hostIP": "nowhere"}]}]}),
            None,
        ),
    ] {
        let outcome = sandbox_config(&pod(spec.clone()), 0, &node());
        assert_eq!(
            outcome.ok().map(|plan| plan.config.hostname),
            expected,
            "{spec}"
        );
    }
}

#[test]
fn only_safe_or_allowed_sysctls_pass() {
    let mut node = node();
    node.allowed_unsafe_sysctls = vec!["net.core.*".to_owned(), "kernel.*".to_owned()];
    for (name, value, extra, passes) in [
        ("net.ipv4.tcp_syncookies", "1", json!({}), true),
        ("net/ipv4/tcp_syncookies", "1", json!({}), true),
        (
            "net.ipv4.ip_local_port_range",
            "1024\t65535",
            json!({}),
            true,
        ),
        ("net.ipv4.ip_forward", "1", json!({}), false),
        ("net.core.somaxconn", "1024", json!({}), true),
        ("kernel.msgmax", "65536", json!({}), true),
        ("kernel.core_pattern", "x", json!({}), false),
        ("vm.swappiness", "1", json!({}), false),
        (
            "net.ipv4.tcp_syncookies",
            "1+kernel.core_pattern=|/x",
            json!({}),
            false,
        ),
        ("kernel.shm_rmid_forced", "1=2", json!({}), false),
        (
            "kernel.shm_rmid_forced+kernel.core_pattern",
            "1",
            json!({}),
            false,
        ),
        ("kernel.shm_rmid_forced", "1\n", json!({}), false),
        ("net..core", "1", json!({}), false),
        (
            "net.ipv4.tcp_syncookies",
            "1",
            json!({"hostNetwork": true}),
            false,
        ),
        (
            "kernel.shm_rmid_forced",
            "1",
            json!({"hostIPC": true}),
            false,
        ),
    ] {
        let mut spec = extra;
        spec["securityContext"] = json!({"sysctls": [{"name": name, "value": value}]});
        let outcome = check_sysctls(&pod(spec), &node);
        assert_eq!(outcome.is_ok(), passes, "{name}={value}: {outcome:?}");
        if let Err(rejection) = outcome {
            assert_eq!(rejection.reason, "SysctlForbidden");
        }
    }
    node.kernel = (4, 4);
    let old = pod(json!({"securityContext":
        {"sysctls": [{"name": "net.ipv4.tcp_keepalive_time", "value": "1"}]}}));
    assert!(
        check_sysctls(&old, &node).is_err(),
        "namespaced only from 4.5 on"
    );
}

fn volume(source: Value) -> Result<VolumeContent, String> {
    let mut source = source;
    source["name"] = json!("v");
    let pod = pod(json!({
        "volumes": [source],
        "containers": [{"name": "c", "resources": {"limits": {"memory": "256Mi"}}}],
    }));
    match volume_contents(&pod, &objects(), &node()) {
        Ok(mut volumes) => Ok(volumes.volumes.remove(0).content),
        Err(errors) => Err(errors[0].message.clone()),
    }
}

fn listing(source: Value) -> Vec<(String, u32, Vec<u8>)> {
    match volume(source.clone()) {
        Ok(VolumeContent::Files { files, .. }) => files
            .into_iter()
            .map(|file| (file.path, file.mode, file.bytes))
            .collect(),
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn object_volumes_become_files() {
    let file = |path: &str, mode, bytes: &[u8]| (path.to_owned(), mode, bytes.to_vec());
    assert_eq!(
        listing(json!({"configMap": {"name": "settings", "defaultMode": 0o600}})),
        [file("level", 0o600, b"3"), file("mode", 0o600, b"fast")]
    );
    assert_eq!(
        listing(json!({"secret": {"secretName": "login", "items":
            [{"key": "raw", "path": "a/./b", "mode": 0o400}]}})),
        [file("a/b", 0o400, &[0xff, 0xfe])]
    );
    assert_eq!(
        listing(json!({"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "mem", "resourceFieldRef":
                {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}},
        ]}})),
        [
            file("labels", 0o644, b"app=\"web\"\ntier=\"a\\\"b\""),
            file("mem", 0o644, b"256")
        ]
    );
    assert_eq!(
        listing(json!({"projected": {"sources": [
            {"configMap": {"name": "settings", "items": [{"key": "mode", "path": "x"}]}},
            {"secret": {"name": "login", "items": [{"key": "password", "path": "x"}]}},
        ]}})),
        [file("x", 0o644, b"hunter2")]
    );
    assert_eq!(
        listing(json!({"secret": {"secretName": "no", "optional": true}})),
        []
    );
}

#[test]
fn volumes_that_cannot_be_had_say_why() {
    let item = |path: &str| {
        json!({"configMap": {"name": "settings", "items":
        [{"key": "mode", "path": path}]}})
    };
    let both = json!({"configMap": {"name": "settings", "items":
        [{"key": "mode", "path": "a"}, {"key": "level", "path": "a/b"}]}});
    for (source, expected) in [
        (
            json!({"configMap": {"name": "x"}}),
            "configmap \"x\" not found",
        ),
        (
            json!({"secret": {"secretName": "x"}}),
            "secret \"x\" not found",
        ),
        (
            json!({"secret": {"secretName": "login", "items": [{"key": "k", "path": "p"}]}}),
            "references non-existent secret key: k",
        ),
        (
            json!({"configMap": {"name": "settings", "items": [{"key": "k", "path": "p"}]}}),
            "configmap references non-existent config key: k",
        ),
        (item("../x"), "must not contain '..'"),
        (item("/x"), "must be relative"),
        (item("..x"), "must not start with '..'"),
        (item(""), "must name a file"),
        (both, "is both a file and a directory"),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}),
            "spec.volumes[0].projected.sources[0].serviceAccountToken is not honoured yet",
        ),
        (
            json!({"gitRepo": {"repository": "x"}}),
            "spec.volumes[0].gitRepo is not honoured",
        ),
        (
            json!({"hostPath": {"path": "/a/../b"}}),
            "must not contain '..'",
        ),
        (
            json!({"hostPath": {"path": "a"}}),
            "is not an absolute path",
        ),
        (
            json!({"hostPath": {"path": "/a", "type": "X"}}),
            "type \"X\" is unknown",
        ),
        (
            json!({"emptyDir": {"medium": "HugePages"}}),
            "is not honoured",
        ),
    ] {
        let error = volume(source.clone()).expect_err(expected);
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn memory_volumes_are_as_large_as_the_smallest_limit() {
    for (source, expected) in [
        (json!({"emptyDir": {"medium": "Memory"}}), Some(256 << 20)),
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
            Some(1 << 20),
        ),
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Ti"}}),
            Some(256 << 20),
        ),
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "0"}}),
            Some(256 << 20),
        ),
    ] {
        let content = VolumeContent::EmptyDir {
            medium: FileMedium::Tmpfs,
            size_bytes: expected,
        };
        assert_eq!(volume(source), Ok(content));
    }
    let disk = VolumeContent::EmptyDir {
        medium: FileMedium::Disk,
        size_bytes: None,
    };
    assert_eq!(
        volume(json!({"emptyDir": {"sizeLimit": "1Mi"}})),
        Ok(disk.clone())
    );
    assert_eq!(volume(json!({})), Ok(disk));
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
