use serde_json::{Value, json};

use super::testing::{Counting, Objects, create};
use super::*;
use crate::object::{Kind, Source};
use crate::registry::{Admit, Denial};

fn plugin(name: &str) -> Box<dyn Admit> {
    make(&[name], &Counting::rc()).remove(0)
}

fn pod() -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn namespaces() -> Objects {
    let ending = json!({"status": {"phase": "Terminating"}});
    Objects::of(vec![
        (Kind::Namespace, "", "a", json!({})),
        (Kind::Namespace, "", "ending", ending),
    ])
}

#[test]
fn the_chain_keeps_upstreams_order_or_exactly_the_one_that_is_written() {
    let of = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let default = Selection::default();
    assert_eq!(default.chain(), DEFAULT_ON);
    let more = Selection {
        enable: of(&["AlwaysPullImages", "NamespaceAutoProvision"]),
        disable: of(&["ServiceAccount", "Priority"]),
        ..Selection::default()
    };
    let expected = [
        "NamespaceAutoProvision",
        "NamespaceLifecycle",
        "LimitRanger",
        "AlwaysPullImages",
        "PodSecurity",
        "DefaultTolerationSeconds",
        "ResourceQuota",
    ];
    assert_eq!(more.chain(), expected);
    let exactly = Selection {
        exactly: Some(of(&["ResourceQuota", "LimitRanger", "ResourceQuota"])),
        ..Selection::default()
    };
    assert_eq!(exactly.chain(), ["ResourceQuota", "LimitRanger"]);
    let made = make(&ORDER, &Counting::rc());
    let made: Vec<&str> = made.iter().map(|plugin| plugin.name()).collect();
    assert_eq!(made, ORDER);
}

#[test]
fn namespaces_must_be_there_and_stay() {
    let view = namespaces();
    let lifecycle = plugin("NamespaceLifecycle");
    let write = |namespace: &str| create(&view, Kind::ConfigMap, namespace, "c");
    assert!(write("a").admit(&*lifecycle, json!({})).is_ok());
    let missing = write("x").admit(&*lifecycle, json!({}));
    let Err(Denial::NotFound(key)) = missing else {
        panic!("{missing:?}");
    };
    assert_eq!((key.kind, key.name.as_str()), (Kind::Namespace, "x"));
    let ends = write("ending").admit(&*lifecycle, json!({}));
    let Err(Denial::Forbidden { message, cause }) = ends else {
        panic!("{ends:?}");
    };
    assert_eq!(
        message,
        "unable to create new content in namespace ending because it is being terminated"
    );
    assert_eq!(
        cause.map(|cause| cause.reason),
        Some("NamespaceTerminating")
    );
    assert!(
        write("ending")
            .over(json!({}))
            .admit(&*lifecycle, json!({}))
            .is_ok()
    );
    assert!(
        write("ending")
            .deleting(json!({}))
            .admit(&*lifecycle, json!({}))
            .is_ok()
    );
    for (name, dies) in [
        ("default", false),
        ("kube-system", false),
        ("kube-node-lease", true),
    ] {
        let write = create(&view, Kind::Namespace, "", name).deleting(json!({}));
        assert_eq!(write.admit(&*lifecycle, json!({})).is_ok(), dies, "{name}");
    }
}

#[test]
fn a_manifest_gets_its_namespace_made_and_a_user_only_if_he_asked_for_it() {
    let view = namespaces();
    let write = create(&view, Kind::Pod, "x", "p").from(Source::File);
    assert!(write.admit(&*plugin("NamespaceLifecycle"), pod()).is_ok());
    assert_eq!(write.remarks().1, ["x"]);
    let write = create(&view, Kind::Pod, "x", "p");
    assert!(
        write
            .admit(&*plugin("NamespaceAutoProvision"), pod())
            .is_ok()
    );
    assert_eq!(write.remarks().1, ["x"]);
    let refused = create(&view, Kind::Pod, "x", "p").admit(&*plugin("NamespaceExists"), pod());
    assert!(matches!(refused, Err(Denial::NotFound(_))), "{refused:?}");
}

#[test]
fn old_plugins_say_what_they_said() {
    let view = Objects::default();
    let write = create(&view, Kind::Pod, "a", "p");
    assert_eq!(
        write.refused(&*plugin("AlwaysDeny"), pod()),
        "admission control is denying all modifications"
    );
    assert_eq!(write.admit(&*plugin("AlwaysAdmit"), pod()), Ok(pod()));
    let pulled = write
        .admit(&*plugin("AlwaysPullImages"), pod())
        .expect("pod");
    assert_eq!(pulled["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let kept = create(&view, Kind::Pod, "a", "p").over(pod());
    assert_eq!(kept.admit(&*plugin("AlwaysPullImages"), pod()), Ok(pod()));
    let deny = plugin("SecurityContextDeny");
    let mut root = pod();
    root["spec"]["securityContext"] = json!({"runAsUser": 0});
    assert_eq!(
        write.refused(&*deny, root),
        "pod.Spec.SecurityContext.RunAsUser is forbidden"
    );
    let mut labelled = pod();
    labelled["spec"]["containers"][0]["securityContext"] = json!({"seLinuxOptions": {}});
    assert_eq!(
        write.refused(&*deny, labelled),
        "SecurityContext.SELinuxOptions is forbidden"
    );
    assert!(write.admit(&*deny, pod()).is_ok());
}

#[test]
fn tolerations_are_added_for_what_is_not_tolerated() {
    let view = Objects::default();
    let write = create(&view, Kind::Pod, "a", "p");
    // Given: how many are added.
    let table = [
        (json!(null), 2),
        (json!([{"operator": "Exists"}]), 0),
        (json!([{"operator": "Exists", "effect": "NoSchedule"}]), 2),
        (
            json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]),
            1,
        ),
        (json!([{"key": "other"}]), 2),
    ];
    for (given, added) in table {
        let mut body = pod();
        body["spec"]["tolerations"] = given.clone();
        let before = given.as_array().map_or(0, Vec::len);
        let admitted = write
            .admit(&*plugin("DefaultTolerationSeconds"), body)
            .expect("pod");
        let after = admitted["spec"]["tolerations"]
            .as_array()
            .map_or(0, Vec::len);
        assert_eq!(after - before, added, "{given}");
    }
}

#[test]
fn priorities_come_of_classes() {
    let view = Objects::of(vec![
        (Kind::PriorityClass, "", "high", json!({"value": 1000})),
        (
            Kind::PriorityClass,
            "",
            "usual",
            json!({"value": 10, "globalDefault": true}),
        ),
    ]);
    let priority = plugin("Priority");
    let write = create(&view, Kind::Pod, "a", "p");
    let with = |class: &str| {
        let mut body = pod();
        body["spec"]["priorityClassName"] = json!(class);
        body
    };
    for (class, value) in [
        ("", 10),
        ("high", 1000),
        ("system-node-critical", 2_000_001_000_i64),
    ] {
        let admitted = write.admit(&*priority, with(class)).expect(class);
        assert_eq!(admitted["spec"]["priority"], value, "{class}");
    }
    assert_eq!(
        write.refused(&*priority, with("none")),
        "no PriorityClass with name none was found"
    );
    let mut lying = with("high");
    lying["spec"]["priority"] = json!(5);
    assert_eq!(
        write.refused(&*priority, lying.clone()),
        "the integer value of priority (5) must not be provided in pod spec; priority admission \
         controller computed 1000 from the given PriorityClass name"
    );
    let own = create(&view, Kind::Pod, "a", "p").from(Source::File);
    assert_eq!(own.admit(&*priority, with("none")), Ok(with("none")));
    assert_eq!(
        own.admit(&*priority, lying).expect("its word")["spec"]["priority"],
        5
    );
    let second = create(&view, Kind::PriorityClass, "", "other");
    assert_eq!(
        second.refused(&*priority, json!({"value": 1, "globalDefault": true})),
        "PriorityClass usual is already marked as default. Only one default can exist"
    );
}

#[test]
fn limit_ranges_fill_in_and_bound() {
    let of = |limit: Value| {
        let range = json!({"spec": {"limits": [limit]}});
        Objects::of(vec![(Kind::LimitRange, "a", "l", range)])
    };
    let asks =
        |resources: Value| json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
    let ranger = plugin("LimitRanger");
    let view = of(json!({
        "type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"},
    }));
    let filled = create(&view, Kind::Pod, "a", "p").admit(&*ranger, asks(json!({})));
    let filled = filled.expect("pod");
    let expected = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}});
    assert_eq!(filled["spec"]["containers"][0]["resources"], expected);
    assert_eq!(
        filled["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    // What the bounds alone say, of a range from before they had defaults.
    let view = of(json!({"type": "Container", "max": {"cpu": 2}, "min": {"memory": "1Mi"}}));
    let filled = create(&view, Kind::Pod, "a", "p").admit(&*ranger, asks(json!({})));
    let expected = json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2", "memory": "1Mi"}});
    let filled = filled.expect("pod");
    assert_eq!(filled["spec"]["containers"][0]["resources"], expected);
    let table = [
        (
            json!({"type": "Container", "max": {"cpu": "1"}}),
            json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}),
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            json!({"type": "Pod", "max": {"cpu": "1"}}),
            json!({}),
            "maximum cpu usage per Pod is 1.  No limit is specified",
        ),
        (
            json!({"type": "Container", "min": {"memory": "10Mi"}}),
            json!({"requests": {"memory": "5Mi"}}),
            "minimum memory usage per Container is 10Mi, but request is 5Mi",
        ),
        (
            json!({"type": "Pod", "min": {"cpu": "1"}}),
            json!({}),
            "minimum cpu usage per Pod is 1.  No request is specified",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "1500m"}}),
            json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}),
            "cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000",
        ),
        (
            json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
            json!({"limits": {"cpu": "2"}}),
            "cpu max limit to request ratio per Container is 2, but no request is specified or \
             request is 0",
        ),
    ];
    for (limit, resources, text) in table {
        let view = of(limit);
        let write = create(&view, Kind::Pod, "a", "p");
        assert_eq!(write.refused(&*ranger, asks(resources.clone())), text);
        let update = create(&view, Kind::Pod, "a", "p").over(json!({}));
        assert!(update.admit(&*ranger, asks(resources)).is_ok());
    }
}

#[test]
fn pods_of_the_api_act_as_an_account() {
    let view = Objects::of(vec![
        (
            Kind::ServiceAccount,
            "a",
            "puller",
            json!({"imagePullSecrets": [{"name": "reg"}], "automountServiceAccountToken": false}),
        ),
        (
            Kind::ServiceAccount,
            "a",
            "strict",
            json!({
                "metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
                "secrets": [{"name": "mine"}],
            }),
        ),
    ]);
    let accounts = plugin("ServiceAccount");
    let write = create(&view, Kind::Pod, "a", "p");
    let admitted = write.admit(&*accounts, pod()).expect("pod");
    let spec = &admitted["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    let volume = spec["volumes"][0]["name"].as_str().expect("a volume");
    assert!(
        volume.starts_with("kube-api-access-") && volume.len() == 21,
        "{volume}"
    );
    let mount = json!({
        "name": volume, "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    });
    assert_eq!(spec["containers"][0]["volumeMounts"], json!([mount]));
    let sources = &spec["volumes"][0]["projected"]["sources"];
    let token = json!({"expirationSeconds": 3607, "path": "token"});
    assert_eq!(sources[0]["serviceAccountToken"], token);
    let named = |account: &str| {
        let mut body = pod();
        body["spec"]["serviceAccountName"] = json!(account);
        body
    };
    let admitted = write.admit(&*accounts, named("puller")).expect("pod");
    assert_eq!(
        admitted["spec"]["imagePullSecrets"],
        json!([{"name": "reg"}])
    );
    assert_eq!(admitted["spec"]["volumes"], Value::Null);
    assert_eq!(
        write.refused(&*accounts, named("gone")),
        "error looking up service account a/gone: serviceaccount \"gone\" not found"
    );
    let mut takes = named("strict");
    takes["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "other"}}]);
    assert_eq!(
        write.refused(&*accounts, takes),
        "volume with secret.secretName=\"other\" is not allowed because service account strict does \
         not reference that secret"
    );
}

#[test]
fn a_pod_of_a_manifest_gets_a_token_only_if_it_says_so_and_always_the_same() {
    let view = Objects::default();
    let accounts = plugin("ServiceAccount");
    let write = create(&view, Kind::Pod, "a", "p").from(Source::File);
    assert_eq!(write.admit(&*accounts, pod()), Ok(pod()));
    let mut named = pod();
    named["spec"]["serviceAccountName"] = json!("gone");
    assert_eq!(write.admit(&*accounts, named.clone()), Ok(named));
    let mut asks = pod();
    asks["spec"]["automountServiceAccountToken"] = json!(true);
    let once = write.admit(&*accounts, asks.clone()).expect("pod");
    assert!(once["spec"]["volumes"][0]["projected"].is_object());
    assert_eq!(write.admit(&*accounts, asks), Ok(once));
}

#[test]
fn a_node_writes_what_is_its_own() {
    let on = |node: &str| json!({"spec": {"nodeName": node}});
    let view = Objects::of(vec![
        (Kind::Node, "", "n1", json!({})),
        (Kind::Pod, "a", "mine", on("n1")),
    ]);
    let restriction = plugin("NodeRestriction");
    let by = |kind: Kind, namespace: &str, name: &str| {
        create(&view, kind, namespace, name).by("system:node:n1", &["system:nodes"])
    };
    let mirror = |uid: &str, extra: Value| {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true});
        let mut body = json!({
            "metadata": {
                "annotations": {"kubernetes.io/config.mirror": "x"},
                "ownerReferences": [owner],
            },
            "spec": extra,
        });
        body["spec"]["nodeName"] = json!("n1");
        body
    };
    let pod = by(Kind::Pod, "a", "p");
    assert!(
        pod.admit(&*restriction, mirror("uid-of-n1", json!({})))
            .is_ok()
    );
    let account = json!({"serviceAccountName": "x"});
    let table = [
        (
            json!({}),
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can \
                     only create mirror pods",
        ),
        (
            mirror("other", json!({})),
            "node n1 UID mismatch: expected other got uid-of-n1",
        ),
        (
            mirror("uid-of-n1", account),
            "node \"n1\" can not create pods that reference serviceaccounts",
        ),
    ];
    for (body, text) in table {
        assert_eq!(pod.refused(&*restriction, body), text);
    }
    assert!(
        by(Kind::Pod, "a", "p")
            .deleting(on("n1"))
            .admit(&*restriction, on("n1"))
            .is_ok()
    );
    assert_eq!(
        by(Kind::Pod, "a", "p")
            .deleting(on("n2"))
            .refused(&*restriction, on("n2")),
        "node \"n1\" can only delete pods with spec.nodeName set to itself"
    );
}

#[test]
fn a_node_changes_no_other_node_and_no_label_of_others() {
    let view = Objects::of(vec![(Kind::Node, "", "n1", json!({}))]);
    let restriction = plugin("NodeRestriction");
    let by = |kind: Kind, namespace: &str, name: &str| {
        create(&view, kind, namespace, name).by("system:node:n1", &["system:nodes"])
    };
    assert_eq!(
        by(Kind::Node, "", "n2").refused(&*restriction, json!({})),
        "node \"n1\" is not allowed to modify node \"n2\""
    );
    let labels = |label: &str| json!({"metadata": {"labels": {label: "x"}}});
    for (label, allowed) in [
        ("mine", true),
        ("kubernetes.io/hostname", true),
        ("foo.node.kubernetes.io/x", true),
        ("node-restriction.kubernetes.io/x", false),
        ("node-role.kubernetes.io/master", false),
        ("other.k8s.io/x", false),
    ] {
        let write = by(Kind::Node, "", "n1").over(json!({}));
        assert_eq!(
            write.admit(&*restriction, labels(label)).is_ok(),
            allowed,
            "{label}"
        );
    }
    let lease = |namespace: &str, name: &str| {
        by(Kind::Lease, namespace, name)
            .admit(&*restriction, json!({}))
            .is_ok()
    };
    assert!(lease("kube-node-lease", "n1"));
    assert!(!lease("kube-node-lease", "n2") && !lease("a", "n1"));
    let others = create(&view, Kind::Node, "", "n2");
    assert!(others.admit(&*restriction, json!({})).is_ok());
}
