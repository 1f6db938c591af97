use serde_json::{Value, json};

use super::*;
use crate::admission::testing::{Objects, create};

fn labelled(labels: Value) -> Objects {
    let namespace = json!({"metadata": {"labels": labels}});
    Objects::of(vec![(Kind::Namespace, "", "a", namespace)])
}

fn hardened() -> Value {
    json!({"spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "c",
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
            },
        }],
    }})
}

#[test]
fn violations_are_told_in_upstreams_words() {
    let restricted = labelled(json!({"pod-security.kubernetes.io/enforce": "restricted"}));
    let write = create(&restricted, Kind::Pod, "a", "p");
    assert!(write.admit(&PodSecurity, hardened()).is_ok());
    assert_eq!(
        write.refused(
            &PodSecurity,
            json!({"spec": {"containers": [{"name": "c"}]}})
        ),
        "violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \
         \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities \
         (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != \
         true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile \
         (pod or container \"c\" must set securityContext.seccompProfile.type to \
         \"RuntimeDefault\" or \"Localhost\")"
    );
    let baseline = labelled(json!({
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/enforce-version": "v1.30",
    }));
    let table = [
        (
            json!({"hostNetwork": true, "hostPID": true}),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {}}]}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]}),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            json!({"containers": [
                {"name": "a", "ports": [{"hostPort": 80}]},
                {"name": "b", "ports": [{"hostPort": 443}]},
            ]}),
            "hostPort (containers \"a\", \"b\" use hostPorts 443, 80)",
        ),
        (
            json!({"containers": [
                {"name": "c", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}},
            ]}),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}),
            "forbidden sysctls (net.ipv4.tcp_rmem)",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may \
             not be set)",
        ),
    ];
    let write = create(&baseline, Kind::Pod, "a", "p");
    for (spec, text) in table {
        let expected = format!("violates PodSecurity \"baseline:v1.30\": {text}");
        assert_eq!(write.refused(&PodSecurity, json!({"spec": spec})), expected);
    }
}

#[test]
fn a_warning_lets_the_pod_in() {
    let view = labelled(json!({"pod-security.kubernetes.io/warn": "baseline"}));
    let write = create(&view, Kind::Pod, "a", "p");
    assert!(
        write
            .admit(&PodSecurity, json!({"spec": {"hostIPC": true}}))
            .is_ok()
    );
    let (warnings, _) = write.remarks();
    assert_eq!(
        warnings,
        ["would violate PodSecurity \"baseline:latest\": host namespaces (hostIPC=true)"]
    );
    let open = labelled(json!({}));
    let write = create(&open, Kind::Pod, "a", "p");
    assert!(
        write
            .admit(&PodSecurity, json!({"spec": {"hostIPC": true}}))
            .is_ok()
    );
    assert!(write.remarks().0.is_empty());
}

#[test]
fn wrong_labels_are_refused_and_stricter_ones_warn_of_pods_that_are_there() {
    let pod = |name| (Kind::Pod, "a", name, json!({"spec": {"hostPID": true}}));
    let view = Objects::of(vec![pod("p2"), pod("p1")]);
    let wrong = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "strict"}}});
    let refused = create(&view, Kind::Namespace, "", "a").admit(&PodSecurity, wrong);
    let path = "metadata.labels[pod-security.kubernetes.io/enforce]".to_owned();
    let why = "Invalid value: \"strict\": must be one of privileged, baseline, restricted";
    assert_eq!(refused, Err(Denial::Invalid(vec![(path, why.to_owned())])));
    let stricter =
        json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let write = create(&view, Kind::Namespace, "", "a").over(json!({}));
    assert!(write.admit(&PodSecurity, stricter).is_ok());
    let expected = [
        "existing pods in namespace \"a\" violate the new PodSecurity enforce level \
         \"baseline:latest\"",
        "p1 (and 1 other pod): host namespaces",
    ];
    assert_eq!(write.remarks().0, expected);
}
