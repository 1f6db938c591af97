use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::owners::{Owner, State, Verdict, judge};
use super::*;
use crate::object::token::SigningKey;
use crate::object::{Key, Kind, Object};
use crate::os::clock::SystemClock;
use crate::os::random::SystemRandom;
use crate::registry::{Deletion, Incoming, Limits, Options, Place, Precondition, Propagation};

const TOKEN_TYPE: &str = "kubernetes.io/service-account-token";

/// Controllers over a registry in memory; nothing happens but in `settle`.
struct Node {
    registry: Registry,
    trust: Rc<Trust>,
    issuer: Arc<Issuer>,
    executor: Rc<LocalExecutor<'static>>,
    _tasks: Vec<Task<()>>,
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    futures_lite::future::block_on(future)
}

impl Node {
    fn start() -> Node {
        let clock: Rc<dyn Clock> = Rc::new(SystemClock::new().expect("clock"));
        let options = Options {
            place: Place::Memory,
            node_name: "n".to_owned(),
            clock: clock.clone(),
            random: Rc::new(SystemRandom),
            limits: Limits::default(),
            encryption: Default::default(),
            admission: Vec::new(),
        };
        let (registry, _) = wait(Registry::open(options)).expect("opens");
        let key = SigningKey::from_pkcs8(&SigningKey::generate().expect("key")).expect("own key");
        let issuer = Arc::new(Issuer::new(key));
        let trust = Trust::new("CA one");
        let controllers = Controllers {
            registry: registry.clone(),
            clock,
            trust: trust.clone(),
            issuer: issuer.clone(),
            api: Some(([10, 88, 0, 1], 6443).into()),
        };
        let executor = Rc::new(LocalExecutor::new());
        let node = Node {
            registry,
            trust,
            issuer,
            _tasks: controllers.start(&executor),
            executor,
        };
        node.settle();
        node
    }

    /// Runs until nothing more happens by itself.
    fn settle(&self) {
        const TICKS_MAX: usize = 10_000;
        let ticks = (0..TICKS_MAX)
            .take_while(|_| self.executor.try_tick())
            .count();
        assert!(ticks < TICKS_MAX, "the controllers do not come to rest");
    }

    fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.registry.reader().get(key)
    }

    fn make(&self, key: &Key, mut body: Value) -> Arc<Object> {
        body["metadata"]["name"] = json!(key.name);
        if key.kind.namespaced() {
            body["metadata"]["namespace"] = json!(key.namespace);
        }
        let made = wait(self.registry.create(Source::Api, key.clone(), body));
        self.settle();
        made.expect("is made")
    }

    fn delete(&self, key: &Key, propagation: Option<Propagation>) {
        let deletion = Deletion {
            propagation,
            ..Deletion::default()
        };
        wait(self.registry.delete(Source::Api, key.clone(), deletion)).expect("is deleted");
        self.settle();
    }

    fn namespace(&self, name: &str) {
        self.make(&Key::local(Kind::Namespace, "", name), json!({}));
    }

    /// A ConfigMap in `default` that names these owners.
    fn owned(&self, name: &str, owners: &[&Object]) -> Key {
        self.owned_with(name, owners, json!({}))
    }

    fn owned_with(&self, name: &str, owners: &[&Object], more: Value) -> Key {
        let key = config(name);
        let references = owners.iter().map(|owner| {
            let mut reference = json!({
                "apiVersion": "v1",
                "kind": owner.key.kind.name(),
                "name": owner.key.name,
                "uid": owner.uid(),
            });
            if let Some(more) = more.as_object() {
                reference
                    .as_object_mut()
                    .expect("object")
                    .extend(more.clone());
            }
            reference
        });
        let references: Vec<Value> = references.collect();
        self.make(&key, json!({"metadata": {"ownerReferences": references}}));
        key
    }

    fn owners_of(&self, key: &Key) -> usize {
        let object = self.get(key).expect("is there");
        let list = object.metadata()["ownerReferences"].as_array();
        list.map_or(0, Vec::len)
    }
}

fn config(name: &str) -> Key {
    Key::local(Kind::ConfigMap, "default", name)
}

fn account(namespace: &str, name: &str) -> Key {
    Key::local(Kind::ServiceAccount, namespace, name)
}

fn certificate(namespace: &str) -> Key {
    Key::local(Kind::ConfigMap, namespace, "kube-root-ca.crt")
}

#[test]
fn every_namespace_gets_its_account_and_certificate_again_and_again() {
    let node = Node::start();
    let built_in = ["default", "kube-node-lease", "kube-public", "kube-system"];
    node.namespace("own");
    for namespace in built_in.into_iter().chain(["own"]) {
        assert!(
            node.get(&account(namespace, "default")).is_some(),
            "{namespace}"
        );
        let shown = node.get(&certificate(namespace)).expect(namespace);
        assert_eq!(shown.body["data"], json!({"ca.crt": "CA one"}));
    }
    let before = node.get(&account("own", "default")).expect("account");
    node.delete(&account("own", "default"), None);
    let after = node.get(&account("own", "default")).expect("made again");
    assert_ne!(before.uid(), after.uid());

    node.delete(&certificate("own"), None);
    assert!(node.get(&certificate("own")).is_some());
    node.trust.replace("CA two");
    node.settle();
    let shown = node.get(&certificate("own")).expect("there");
    assert_eq!(shown.body["data"], json!({"ca.crt": "CA two"}));
    assert!(shown.annotation("kubernetes.io/description").is_some());
}

#[test]
fn the_api_is_a_service_that_is_put_right() {
    let node = Node::start();
    let key = Key::local(Kind::Service, "default", "kubernetes");
    let service = node.get(&key).expect("service");
    assert_eq!(service.body["spec"]["clusterIP"], "10.88.0.1");
    let mut body = service.body.clone();
    body["spec"]["clusterIP"] = json!("192.0.2.1");
    body["metadata"]["labels"]["mine"] = json!("kept");
    let update = node
        .registry
        .update(Source::Api, key.clone(), body, Precondition::default());
    wait(update).expect("taken");
    node.settle();
    let service = node.get(&key).expect("service");
    assert_eq!(service.body["spec"]["clusterIP"], "10.88.0.1");
    assert_eq!(service.label("mine"), Some("kept"));
    let endpoints = node.get(&Key::local(Kind::Endpoints, "default", "kubernetes"));
    let subsets = &endpoints.expect("endpoints").body["subsets"];
    assert_eq!(subsets[0]["addresses"][0]["ip"], "10.88.0.1");
    assert_eq!(subsets[0]["ports"][0]["port"], 6443);
}

#[test]
fn a_deleted_namespace_goes_with_its_content_pods_first() {
    let node = Node::start();
    node.namespace("own");
    let settings = Key::local(Kind::ConfigMap, "own", "settings");
    node.make(&settings, json!({}));
    let pod = Key::local(Kind::Pod, "own", "web");
    let spec = json!({"containers": [{"name": "c", "image": "i"}]});
    let made = node.make(&pod, json!({"spec": spec}));
    let key = Key::local(Kind::Namespace, "", "own");
    node.delete(&key, None);

    let namespace = node.get(&key).expect("waits for its pod");
    assert_eq!(namespace.body["status"]["phase"], "Terminating");
    assert!(node.get(&pod).expect("stops").is_deleting());
    assert!(node.get(&settings).is_some(), "the pod may still use it");
    let condition = |kind: &str| {
        let list = namespace.body["status"]["conditions"]
            .as_array()
            .expect("conditions");
        let found = list.iter().find(|condition| condition["type"] == kind);
        found.expect(kind).clone()
    };
    let remaining = condition("NamespaceContentRemaining");
    assert_eq!(remaining["status"], "True");
    let message = remaining["message"].as_str().expect("text");
    assert!(
        message.contains("pods. has 1 resource instances"),
        "{message}"
    );
    assert_eq!(
        condition("NamespaceDeletionContentFailure")["status"],
        "False"
    );

    node.registry.finish_deletion(&pod, made.uid());
    node.settle();
    assert!(node.get(&settings).is_none());
    assert!(node.get(&account("own", "default")).is_none());
    assert!(node.get(&key).is_none(), "gone with its content");
}

#[test]
fn pods_of_nodes_that_are_not_there_wait_for_nobody() {
    let node = Node::start();
    let machine = Key::local(Kind::Node, "", "elsewhere");
    let pod = Key::local(Kind::Pod, "default", "web");
    let body = json!({"spec": {
        "nodeName": "elsewhere", "containers": [{"name": "web", "image": "i"}],
    }});
    node.make(&machine, json!({}));
    node.make(&pod, body.clone());
    node.delete(&pod, None);
    assert!(node.get(&pod).expect("its node says when").is_deleting());
    node.delete(&machine, None);
    assert_eq!(node.get(&pod), None);

    node.make(&pod, body);
    node.delete(&pod, None);
    assert_eq!(node.get(&pod), None);
}

#[test]
fn content_with_finalizers_holds_its_namespace_and_is_named() {
    let node = Node::start();
    node.namespace("own");
    let held = Key::local(Kind::ConfigMap, "own", "held");
    node.make(
        &held,
        json!({"metadata": {"finalizers": ["example.com/x"]}}),
    );
    let key = Key::local(Kind::Namespace, "", "own");
    node.delete(&key, None);
    let namespace = node.get(&key).expect("is held");
    let status = namespace.body["status"].to_string();
    assert!(
        status.contains("example.com/x in 1 resource instances"),
        "{status}"
    );

    let mut body = node.get(&held).expect("waits").body.clone();
    body["metadata"]["finalizers"] = json!([]);
    let update = node
        .registry
        .update(Source::Api, held, body, Precondition::default());
    wait(update).expect("taken");
    node.settle();
    assert!(node.get(&key).is_none());
}

#[test]
fn token_secrets_are_filled_listed_and_end_with_their_account() {
    let node = Node::start();
    let robot = account("default", "robot");
    node.make(&robot, json!({"secrets": [{"name": "later"}]}));
    let key = Key::local(Kind::Secret, "default", "robot-token");
    let body = json!({
        "type": TOKEN_TYPE,
        "metadata": {"annotations": {"kubernetes.io/service-account.name": "robot"}},
    });
    node.make(&key, body.clone());
    let secret = node.get(&key).expect("there");
    let uid = node.get(&robot).expect("there").uid().to_owned();
    assert_eq!(
        secret.annotation("kubernetes.io/service-account.uid"),
        Some(&*uid)
    );
    let data = |name: &str| {
        use base64::Engine;
        let text = secret.body["data"][name].as_str().unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text);
        String::from_utf8(bytes.expect("base64")).expect("text")
    };
    assert_eq!(
        (data("ca.crt"), data("namespace")),
        ("CA one".into(), "default".into())
    );
    let token = data("token");
    let check = || {
        let lookup = |key: &Key| node.get(key);
        let checked = node
            .issuer
            .check(&token, &[], crate::os::clock::wall_time(), &lookup);
        checked.map(|checked| checked.map(|checked| checked.user.name))
    };
    let name = "system:serviceaccount:default:robot".to_owned();
    assert_eq!(check(), Ok(Some(name)));
    let listed = |node: &Node| node.get(&robot).expect("there").body["secrets"].clone();
    assert_eq!(
        listed(&node),
        json!([{"name": "later"}, {"name": "robot-token"}])
    );

    node.delete(&key, None);
    assert_eq!(listed(&node), json!([{"name": "later"}]));
    assert!(check().is_err(), "the Secret is gone");

    node.make(&key, body);
    node.delete(&robot, None);
    assert!(node.get(&key).is_none(), "goes with its account");
}

/// A complete list of a manifest directory.
fn state(node: &Node, objects: &[(&Key, Value)]) {
    let incoming = objects.iter().map(|(key, body)| {
        let mut body = body.clone();
        body["metadata"]["name"] = json!(key.name);
        Incoming::Object {
            key: (*key).clone(),
            provenance: None,
            body,
            lines: Default::default(),
        }
    });
    let replaced = wait(node.registry.replace(Source::File, incoming.collect()));
    assert_eq!(replaced.expect("taken").problems, []);
    node.settle();
}

#[test]
fn what_manifests_state_of_accounts_is_filled_and_kept() {
    let node = Node::start();
    let robot = account("default", "robot");
    let key = Key::local(Kind::Secret, "default", "robot-token");
    let secret = || {
        let annotations = json!({"kubernetes.io/service-account.name": "robot"});
        (
            &key,
            json!({"type": TOKEN_TYPE, "metadata": {"annotations": annotations}}),
        )
    };
    state(&node, &[(&robot, json!({})), secret()]);
    let filled = node.get(&key).expect("there");
    let token = filled.body["data"]["token"].clone();
    assert!(token.is_string(), "{}", filled.body);
    let made = node.get(&robot).expect("there");
    assert_eq!(
        made.body.get("secrets"),
        None,
        "its file says what it lists"
    );
    // The same text read again, and a text that says more.
    let version = filled.resource_version;
    state(&node, &[(&robot, json!({})), secret()]);
    assert_eq!(node.get(&key).expect("there").resource_version, version);
    let (_, mut more) = secret();
    more["stringData"] = json!({"extra": "1"});
    state(&node, &[(&robot, json!({})), (&key, more)]);
    assert_eq!(node.get(&key).expect("there").body["data"]["token"], token);
    // Without its account it is nobody's, and still the file's.
    state(&node, &[secret()]);
    assert!(node.get(&robot).is_none() && node.get(&key).is_some());
}

#[test]
fn what_is_there_without_a_manifest_is_left_when_its_manifest_goes() {
    let node = Node::start();
    let space = Key::local(Kind::Namespace, "", "plant");
    let default = account("plant", "default");
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline"});
    let pull = json!({"imagePullSecrets": [{"name": "registry"}]});
    let stated = [
        (&space, json!({"metadata": {"labels": labels}})),
        (&default, pull),
    ];
    for _ in 0..2 {
        state(&node, &stated);
        let uids = [&space, &default].map(|key| {
            let object = node.get(key).expect("there");
            assert_eq!(object.source, Source::File, "{key}");
            object.uid().to_owned()
        });
        state(&node, &[]);
        for (key, uid) in [&space, &default].into_iter().zip(uids) {
            let left = node.get(key).expect("stays");
            assert_eq!((left.source, left.uid()), (Source::Api, &*uid), "{key}");
        }
    }
}

#[test]
fn a_renewed_certificate_reaches_token_secrets_and_their_token_stays() {
    let node = Node::start();
    let key = Key::local(Kind::Secret, "default", "t");
    let annotations = json!({"kubernetes.io/service-account.name": "default"});
    node.make(
        &key,
        json!({"type": TOKEN_TYPE, "metadata": {"annotations": annotations}}),
    );
    let before = node.get(&key).expect("there").body["data"].clone();
    node.trust.replace("CA two");
    node.settle();
    let after = node.get(&key).expect("there").body["data"].clone();
    assert_ne!(before["ca.crt"], after["ca.crt"]);
    assert_eq!(before["token"], after["token"]);
    assert!(before["token"].is_string());
}

#[test]
fn what_an_object_owned_goes_after_it_and_what_has_another_owner_stays() {
    let node = Node::start();
    let (one, two) = (config("one"), config("two"));
    let (a, b) = (node.make(&one, json!({})), node.make(&two, json!({})));
    let only = node.owned("only", &[&a]);
    let both = node.owned("both", &[&a, &b]);
    let below = node.owned("below", &[&*node.get(&only).expect("there")]);
    node.delete(&one, Some(Propagation::Background));
    assert!(node.get(&only).is_none());
    assert!(node.get(&below).is_none(), "and what that owned");
    assert_eq!(
        node.owners_of(&both),
        1,
        "the reference that leads nowhere is dropped"
    );
}

#[test]
fn in_the_foreground_what_blocks_goes_first() {
    let node = Node::start();
    let one = config("one");
    let owner = node.make(&one, json!({}));
    let block = json!({"blockOwnerDeletion": true});
    let blocking = node.owned_with("blocking", &[&owner], block.clone());
    let below = {
        let middle = node.get(&blocking).expect("there");
        node.owned_with("below", &[&middle], block)
    };
    let mut body = node.get(&below).expect("there").body.clone();
    body["metadata"]["finalizers"] = json!(["example.com/x"]);
    let update = |body| {
        let update =
            node.registry
                .update(Source::Api, below.clone(), body, Precondition::default());
        wait(update).expect("taken");
        node.settle();
    };
    update(body);
    node.delete(&one, Some(Propagation::Foreground));
    for key in [&one, &blocking, &below] {
        assert!(
            node.get(key).is_some_and(|now| now.is_deleting()),
            "{key} waits"
        );
    }
    let mut body = node.get(&below).expect("there").body.clone();
    body["metadata"]["finalizers"] = json!([]);
    update(body);
    for key in [&one, &blocking, &below] {
        assert!(node.get(key).is_none(), "{key} is gone");
    }
}

#[test]
fn owners_in_a_circle_go_in_the_foreground() {
    for length in [2, 3] {
        let node = Node::start();
        let block = json!({"blockOwnerDeletion": true});
        let first = node.make(&config("c0"), json!({}));
        let mut last = first.clone();
        let mut circle = vec![first.key.clone()];
        for n in 1..length {
            let key = node.owned_with(&format!("c{n}"), &[&*last], block.clone());
            last = node.get(&key).expect("there");
            circle.push(key);
        }
        let mut body = first.body.clone();
        body["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": last.key.name, "uid": last.uid(),
            "blockOwnerDeletion": true,
        }]);
        let key = first.key.clone();
        let closed = node
            .registry
            .update(Source::Api, key, body, Precondition::default());
        wait(closed).expect("the circle is closed");
        node.settle();
        node.delete(&first.key, Some(Propagation::Foreground));
        for key in &circle {
            assert!(node.get(key).is_none(), "{key} of {length}");
        }
    }
}

#[test]
fn orphans_stay_without_their_owner() {
    let node = Node::start();
    let one = config("one");
    let owner = node.make(&one, json!({}));
    let kept = node.owned("kept", &[&owner]);
    node.delete(&one, Some(Propagation::Orphan));
    assert!(node.get(&one).is_none());
    assert_eq!(node.owners_of(&kept), 0);
}

#[test]
fn owners_that_never_were_or_are_elsewhere_do_not_count_and_unknown_kinds_do() {
    let node = Node::start();
    node.namespace("own");
    let elsewhere = Key::local(Kind::ConfigMap, "own", "one");
    let elsewhere = node.make(&elsewhere, json!({}));
    let stray = node.owned("stray", &[&elsewhere]);
    assert!(node.get(&stray).is_none());
    let (events, _) = node.registry.reader().list(Kind::Event, None);
    let reasons: BTreeSet<_> = events
        .iter()
        .map(|e| e.body["reason"].clone().to_string())
        .collect();
    assert!(
        reasons.contains("\"OwnerRefInvalidNamespace\""),
        "{reasons:?}"
    );

    let reference = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "u",
    });
    let key = config("of-a-set");
    node.make(&key, json!({"metadata": {"ownerReferences": [reference]}}));
    assert_eq!(node.owners_of(&key), 1);
}

#[test]
fn verdicts_follow_from_owners() {
    use State::{Gone, There, Waits};
    let owner = |uid: &str| Owner {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: uid.to_owned(),
        uid: uid.to_owned(),
        blocks: false,
    };
    let loses = |uids: &[&str]| Verdict::Loses(uids.iter().map(|uid| (*uid).to_owned()).collect());
    let goes = Verdict::Goes;
    let none = json!({});
    let orphaning = json!({"finalizers": ["orphan"]});
    let foreground = json!({"finalizers": ["foregroundDeletion"]});
    let table = [
        (vec![], &none, false, Verdict::Stays),
        (vec![There], &none, true, Verdict::Stays),
        (vec![There, Gone], &none, false, loses(&["1"])),
        (vec![Waits, There, Gone], &none, false, loses(&["0", "2"])),
        (
            vec![Gone, Gone],
            &none,
            false,
            goes(Propagation::Background),
        ),
        (vec![Gone], &orphaning, true, goes(Propagation::Orphan)),
        (vec![Gone], &foreground, true, goes(Propagation::Foreground)),
        (vec![Waits], &none, false, goes(Propagation::Background)),
        (vec![Waits], &orphaning, true, goes(Propagation::Foreground)),
        (
            vec![Waits, Gone],
            &none,
            true,
            goes(Propagation::Foreground),
        ),
    ];
    for (states, metadata, dependants, expected) in table {
        let named = states.iter().enumerate();
        let named: Vec<_> = named
            .map(|(n, state)| (owner(&n.to_string()), *state))
            .collect();
        assert_eq!(
            judge(&named, metadata, dependants),
            expected,
            "{states:?} {metadata}"
        );
    }
}
