use std::rc::Rc;

use serde_json::{Value, json};

use super::review::{self, Review};
use super::*;
use crate::apiserver::query::Query;
use crate::object::user::{GROUP_AUTHENTICATED, GROUP_NODES};
use crate::object::{Key, Kind, Source};
use crate::registry::{self, Place, Registry};
use crate::world::{BootTime, Clock, LocalFuture, Random};

struct Still;

impl Clock for Still {
    fn now(&self) -> BootTime {
        BootTime::default()
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::UNIX_EPOCH
    }

    fn sleep_until(&self, _deadline: BootTime) -> LocalFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

struct Counting(std::cell::Cell<u8>);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.set(self.0.get() + 1);
        bytes.fill(self.0.get());
    }
}

fn registry(objects: Vec<(Kind, &str, &str, Value)>) -> Registry {
    async_io::block_on(async {
        let options = registry::Options {
            place: Place::Memory,
            node_name: "pi".to_owned(),
            clock: Rc::new(Still),
            random: Rc::new(Counting(0.into())),
            limits: registry::Limits::default(),
            encryption: Default::default(),
            admission: Vec::new(),
        };
        let (registry, _) = Registry::open(options).await.expect("in memory");
        for (kind, namespace, name, mut body) in objects {
            body["metadata"]["name"] = json!(name);
            if kind.namespaced() {
                body["metadata"]["namespace"] = json!(namespace);
            }
            let key = Key::local(kind, namespace, name);
            registry.create(Source::Node, key, body).await.expect(name);
        }
        registry
    })
}

/// `get /version`, or `get pods/log a x` with `-` for nothing: verb, resource, namespace, name.
fn request(text: &str) -> RequestInfo {
    let words: Vec<&str> = text.split(' ').collect();
    if let [verb, path] = words.as_slice() {
        return RequestInfo {
            verb: (*verb).to_owned(),
            path: (*path).to_owned(),
            ..RequestInfo::default()
        };
    }
    let [verb, resource, namespace, name] = words[..] else {
        panic!("{text}");
    };
    let or_empty = |word: &str| {
        if word == "-" {
            String::new()
        } else {
            word.to_owned()
        }
    };
    let (resource, field_selector) = resource.split_once('?').unwrap_or((resource, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    RequestInfo {
        is_resource: true,
        verb: verb.to_owned(),
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: or_empty(namespace),
        name: or_empty(name),
        field_selector: field_selector.to_owned(),
        ..RequestInfo::default()
    }
}

fn user(name: &str, groups: &[&str]) -> User {
    let groups: Vec<&str> = groups
        .iter()
        .copied()
        .chain([GROUP_AUTHENTICATED])
        .collect();
    User::new(name, &groups)
}

fn allows(authorizer: &Authorizer, user: &User, text: &str) -> bool {
    authorizer.check(user, &request(text)).is_ok()
}

const V1: &str = r#""apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy""#;

/// The policy of the article's kind, with a rule of each sort.
fn policy() -> PolicyFile {
    PolicyFile::of(&format!(
        r#"
# flat rules
{{"user":"alice"}}
{{"user":"kubelet","resource":"pods","readonly":true}}
{{"user":"kubelet","resource":"events"}}
{{"user":"bob","namespace":"projectCaribou"}}
{{"group":"readers","readonly":true}}
{{"user":"carol","group":"devs","namespace":"dev"}}
# versioned rules
{{{V1},"spec":{{"user":"dave","namespace":"*","resource":"pods","apiGroup":""}}}}
{{{V1},"spec":{{"user":"eve","namespace":"a","resource":"*","apiGroup":"*"}}}}
{{{V1},"spec":{{"user":"frank","nonResourcePath":"/health*","readonly":true}}}}
{{{V1},"spec":{{"user":"gina","resource":"nodes","readonly":true}}}}
{{{V1},"spec":{{"user":"hugo","namespace":"*","resource":"*"}}}}
{{{V1},"spec":{{"namespace":"*","resource":"*","apiGroup":"*","nonResourcePath":"*"}}}}
"#
    ))
}

#[test]
fn abac_answers_as_upstream() {
    let authorizer = Authorizer::of(vec![Box::new(policy())]);
    let table: &[(&str, &[&str], &str, bool)] = &[
        // Everything, paths too.
        ("alice", &[], "delete secrets x y", true),
        ("alice", &[], "update configmaps - -", true),
        ("alice", &[], "post /anything", true),
        // A resource, in any namespace; its subresources; not paths.
        ("kubelet", &[], "list pods x -", true),
        ("kubelet", &[], "list pods - -", true),
        ("kubelet", &[], "watch pods - -", true),
        ("kubelet", &[], "get pods/log x y", true),
        ("kubelet", &[], "create pods x y", false),
        ("kubelet", &[], "create events x y", true),
        ("kubelet", &[], "create events.events.k8s.io x y", true),
        ("kubelet", &[], "get secrets x y", false),
        ("kubelet", &[], "get /version", false),
        // A rule that only reads opens no stream into a container, though it is asked for by GET.
        ("kubelet", &[], "get pods/exec x y", false),
        ("kubelet", &[], "get pods/portforward x y", false),
        ("alice", &[], "get pods/exec x y", true),
        // One namespace; nothing outside of it.
        ("bob", &[], "delete secrets projectCaribou y", true),
        ("bob", &[], "get secrets other y", false),
        ("bob", &[], "list nodes - -", false),
        ("bob", &[], "get /version", false),
        // A group that reads.
        ("x", &["readers"], "get secrets a b", true),
        ("x", &["readers"], "get /version", true),
        ("x", &["readers"], "delete secrets a b", false),
        ("x", &["writers"], "get secrets a b", false),
        // User and group: both.
        ("carol", &["devs"], "delete pods dev x", true),
        ("carol", &[], "delete pods dev x", false),
        ("x", &["devs"], "delete pods dev x", false),
        // Versioned: what is not said matches only what is empty.
        ("dave", &[], "delete pods a b", true),
        ("dave", &[], "delete pods - -", true),
        ("dave", &[], "delete services a b", false),
        ("dave", &[], "get pods.metrics.k8s.io a b", false),
        ("eve", &[], "delete leases.coordination.k8s.io a b", true),
        ("eve", &[], "delete leases.coordination.k8s.io b b", false),
        ("eve", &[], "get /version", false),
        ("frank", &[], "get /healthz/ping", true),
        ("frank", &[], "get /version", false),
        ("frank", &[], "post /healthz", false),
        ("gina", &[], "list nodes - -", true),
        ("gina", &[], "list nodes a -", false),
        ("hugo", &[], "delete secrets a b", true),
        ("hugo", &[], "get leases.coordination.k8s.io a b", false),
        ("nobody", &[], "get pods a b", false),
        ("nobody", &[], "get /version", false),
    ];
    for (name, groups, asked, allowed) in table.iter().copied() {
        let user = user(name, groups);
        assert_eq!(
            allows(&authorizer, &user, asked),
            allowed,
            "{name}: {asked}"
        );
    }
}

#[test]
fn a_flat_rule_for_all_is_for_the_authenticated_only() {
    let authorizer = Authorizer::of(vec![Box::new(PolicyFile::of("{\"readonly\":true}"))]);
    let anonymous = User::new("system:anonymous", &["system:unauthenticated"]);
    assert!(allows(&authorizer, &user("x", &[]), "get pods a b"));
    assert!(!allows(&authorizer, &anonymous, "get pods a b"));
}

#[test]
fn modes_are_asked_in_order_and_masters_never() {
    let registry = registry(Vec::new());
    let policy = PolicyFile::of("{\"user\":\"a\"}");
    // modes, user a, user b, master, a node's own lease
    let table: &[(&[Mode], [bool; 4])] = &[
        (&[], [false, false, true, false]),
        (&[Mode::AlwaysDeny], [false, false, true, false]),
        (&[Mode::AlwaysAllow], [true, true, true, true]),
        (&[Mode::Abac], [true, false, true, false]),
        (&[Mode::AlwaysDeny, Mode::Abac], [true, false, true, false]),
        (
            &[Mode::AlwaysDeny, Mode::AlwaysAllow],
            [true, true, true, true],
        ),
        (&[Mode::Node], [false, false, true, true]),
        (&[Mode::Node, Mode::Abac], [true, false, true, true]),
    ];
    for (modes, [a, b, master, node]) in table.iter().copied() {
        let authorizer = Authorizer::new(modes, &policy, &registry.reader());
        let asked = "get leases.coordination.k8s.io kube-node-lease n1";
        let got = [
            allows(&authorizer, &user("a", &[]), asked),
            allows(&authorizer, &user("b", &[]), asked),
            allows(&authorizer, &user("c", &[GROUP_MASTERS]), asked),
            allows(&authorizer, &user("system:node:n1", &[GROUP_NODES]), asked),
        ];
        assert_eq!(got, [a, b, master, node], "{modes:?}");
    }
}

/// What node n1 asks, and whether it may.
const NODE_REQUESTS: &[(&str, bool)] = &[
    ("get secrets a s1", true),
    ("watch secrets a s1", true),
    ("get secrets a s2", false),
    ("get secrets b s1", false),
    ("get secrets a mirrored", false),
    ("list secrets a -", false),
    ("list secrets - -", false),
    ("update secrets a s1", false),
    ("get configmaps a c1", true),
    ("get configmaps a s1", false),
    ("create serviceaccounts/token a sa-n1", true),
    ("create serviceaccounts/token a sa-n2", false),
    ("get serviceaccounts a sa-n1", true),
    ("create serviceaccounts a sa-n1", false),
    ("get pods a p1", true),
    ("get pods a p2", false),
    ("get pods a gone", false),
    ("list pods - -", false),
    ("list pods?spec.nodeName=n1 - -", true),
    ("watch pods?spec.nodeName=n2 - -", false),
    ("watch pods?spec.nodeName!=n1 - -", false),
    ("create pods a x", true),
    ("delete pods a x", true),
    ("update pods a p1", false),
    ("patch pods/status a p1", true),
    ("create pods/eviction a p1", true),
    ("create pods/binding a p1", false),
    ("get pods/log a p1", false),
    ("get nodes - n1", true),
    ("get nodes - n2", false),
    ("list nodes - -", false),
    ("create nodes - n1", true),
    ("patch nodes/status - n1", true),
    ("delete nodes - n1", false),
    ("get leases.coordination.k8s.io kube-node-lease n1", true),
    ("get leases.coordination.k8s.io kube-node-lease n2", false),
    ("get leases.coordination.k8s.io default n1", false),
    ("list leases.coordination.k8s.io kube-node-lease -", false),
    ("create events a x", true),
    ("patch events.events.k8s.io a x", true),
    ("get events a x", false),
    ("list services - -", true),
    ("get namespaces a a", false),
    ("create subjectaccessreviews.authorization.k8s.io - -", true),
    ("get /version", false),
];

#[test]
fn a_node_reads_what_its_pods_name_and_writes_its_own() {
    let pod = |node: &str, volume: Value| {
        json!({"spec": {
            "nodeName": node,
            "serviceAccountName": format!("sa-{node}"),
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [volume],
        }})
    };
    let mut mirror = pod(
        "n1",
        json!({"name": "v", "secret": {"secretName": "mirrored"}}),
    );
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let secret = |name: &str| json!({"name": "v", "secret": {"secretName": name}});
    let registry = registry(vec![
        (Kind::Pod, "a", "p1", pod("n1", secret("s1"))),
        (Kind::Pod, "a", "p2", pod("n2", secret("s2"))),
        (
            Kind::Pod,
            "a",
            "p3",
            pod("n1", json!({"name": "v", "configMap": {"name": "c1"}})),
        ),
        (Kind::Pod, "a", "p4", mirror),
    ]);
    let policy = PolicyFile::new(None);
    let authorizer = Authorizer::new(&[Mode::Node], &policy, &registry.reader());
    let node = user("system:node:n1", &[GROUP_NODES]);
    let pretender = user("system:node:n1", &[]);
    for &(asked, allowed) in NODE_REQUESTS {
        assert_eq!(allows(&authorizer, &node, asked), allowed, "{asked}");
        assert!(!allows(&authorizer, &pretender, asked), "{asked}");
    }
}

#[test]
fn a_refusal_is_worded_as_upstream() {
    let authorizer = Authorizer::of(vec![Box::new(AlwaysDeny), Box::new(PolicyFile::of(""))]);
    let table = [
        (
            "get pods/log a x",
            "pods \"x\" is forbidden: User \"u\" cannot get resource \"pods/log\" in API group \"\" \
             in the namespace \"a\": Everything is forbidden.\nNo policy matched.",
        ),
        (
            "list nodes - -",
            "nodes is forbidden: User \"u\" cannot list resource \"nodes\" in API group \"\" at the \
             cluster scope: Everything is forbidden.\nNo policy matched.",
        ),
        (
            "get leases.coordination.k8s.io a x",
            "leases.coordination.k8s.io \"x\" is forbidden: User \"u\" cannot get resource \
             \"leases\" in API group \"coordination.k8s.io\" in the namespace \"a\": Everything is \
             forbidden.\nNo policy matched.",
        ),
        (
            "get /a<b>&c",
            "forbidden: User \"u\" cannot get path \"/a&lt;b&gt;&amp;c\": Everything is \
             forbidden.\nNo policy matched.",
        ),
    ];
    for (asked, text) in table {
        let refusal = authorizer
            .check(&user("u", &[]), &request(asked))
            .expect_err(asked);
        assert_eq!(refusal.message, text);
        assert_eq!(refusal.code.as_u16(), 403);
    }
}

#[test]
fn a_path_and_its_question_get_the_same_answer() {
    let query = Query::parse("fieldSelector=spec.nodeName%3Dn1").expect("query");
    let asked = RequestInfo::parse(&http::Method::GET, "/api/v1/pods", &query).expect("request");
    assert_eq!(asked.field_selector, "spec.nodeName=n1");
    let registry = registry(Vec::new());
    let authorizer = Authorizer::new(&[Mode::Node], &PolicyFile::new(None), &registry.reader());
    let node = user("system:node:n1", &[GROUP_NODES]);
    assert!(authorizer.check(&node, &asked).is_ok());
    let body = json!({"spec": {"resourceAttributes": {
        "verb": "list", "resource": "pods",
        "fieldSelector": {"requirements": [
            {"key": "spec.nodeName", "operator": "In", "values": ["n1"]},
        ]},
    }}});
    let answer = review::answer(Review::SelfSubjectAccess, &authorizer, &node, "", body);
    assert_eq!(
        answer.expect("a review")["status"],
        json!({"allowed": true})
    );
}

#[test]
fn reviews_answer_for_whom_they_ask() {
    let authorizer = Authorizer::of(vec![Box::new(policy())]);
    let pods = |namespace: &str| json!({"verb": "get", "resource": "pods", "namespace": namespace});
    let path = json!({"verb": "get", "path": "/version"});
    let refused = json!({"allowed": false, "reason": "No policy matched."});
    let allowed = json!({"allowed": true});
    let table = [
        (
            Review::SelfSubjectAccess,
            json!({"resourceAttributes": pods("a")}),
            &allowed,
        ),
        (
            Review::SelfSubjectAccess,
            json!({"nonResourceAttributes": path}),
            &refused,
        ),
        (
            Review::SubjectAccess,
            json!({"user": "bob", "resourceAttributes": pods("a")}),
            &refused,
        ),
        (
            Review::SubjectAccess,
            json!({"user": "x", "groups": ["readers"], "nonResourceAttributes": path}),
            &allowed,
        ),
        (
            Review::SubjectAccess,
            json!({"groups": ["system:masters"], "resourceAttributes": pods("a")}),
            &allowed,
        ),
        (
            Review::LocalSubjectAccess,
            json!({"user": "alice", "resourceAttributes": pods("here")}),
            &allowed,
        ),
    ];
    for (review, spec, status) in table {
        let body = json!({"spec": spec});
        let asking = user("kubelet", &[]);
        let answer = review::answer(review, &authorizer, &asking, "here", body.clone());
        let answer = answer.unwrap_or_else(|refusal| panic!("{body}: {refusal:?}"));
        assert_eq!(&answer["status"], status, "{body}");
        assert_eq!(answer["kind"], review.kind());
        assert_eq!(answer["spec"], spec);
    }
}

#[test]
fn questions_without_sense_are_refused() {
    let authorizer = Authorizer::default();
    let pods = json!({"verb": "get", "resource": "pods", "namespace": "a"});
    let path = json!({"verb": "get", "path": "/"});
    let table = [
        (
            Review::SelfSubjectAccess,
            json!({}),
            422,
            "exactly one of nonResourceAttributes",
        ),
        (
            Review::SelfSubjectAccess,
            json!({"spec": {"resourceAttributes": pods, "nonResourceAttributes": path}}),
            422,
            "cannot be specified in combination",
        ),
        (
            Review::SubjectAccess,
            json!({"spec": {"resourceAttributes": pods}}),
            422,
            "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.user: Invalid value: \
             \"\": at least one of user or group must be specified",
        ),
        (
            Review::SubjectAccess,
            json!({"metadata": {"name": "x"}, "spec": {"user": "u", "resourceAttributes": pods}}),
            422,
            "must be empty",
        ),
        (
            Review::LocalSubjectAccess,
            json!({"spec": {"user": "u", "resourceAttributes": pods}}),
            422,
            "must match metadata.namespace",
        ),
        (
            Review::LocalSubjectAccess,
            json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": pods}}),
            400,
            "does not match the namespace sent on the request",
        ),
        (
            Review::SelfSubjectRules,
            json!({"spec": {}}),
            400,
            "no namespace on request",
        ),
        (
            Review::SubjectAccess,
            json!([]),
            400,
            "must be a JSON object",
        ),
        (
            Review::SubjectAccess,
            json!({"kind": "Pod"}),
            400,
            "cannot be handled",
        ),
    ];
    for (review, body, code, text) in table {
        let refusal = review::answer(review, &authorizer, &user("u", &[]), "b", body.clone());
        let refusal = refusal.expect_err(text);
        assert_eq!(refusal.code.as_u16(), code, "{body}");
        assert!(refusal.message.contains(text), "{}", refusal.message);
    }
}

#[test]
fn rules_are_listed_as_far_as_they_are_known() {
    let registry = registry(Vec::new());
    let policy = policy();
    let authorizer = Authorizer::new(&[Mode::Node, Mode::Abac], &policy, &registry.reader());
    let rules = |user: &User| {
        let body = json!({"spec": {"namespace": "x"}});
        let answer = review::answer(Review::SelfSubjectRules, &authorizer, user, "", body);
        answer.expect("rules")["status"].clone()
    };
    let expected = json!({
        "resourceRules": [
            {"verbs": ["get", "list", "watch"], "apiGroups": ["*"], "resources": ["pods"]},
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["events"]},
        ],
        "nonResourceRules": [],
        "incomplete": false,
    });
    assert_eq!(rules(&user("kubelet", &[])), expected);
    let master = rules(&user("m", &[GROUP_MASTERS]));
    assert_eq!(master["resourceRules"][0]["resources"], json!(["*"]));
    let node = rules(&user("system:node:n1", &[GROUP_NODES]));
    assert_eq!(node["incomplete"], true);
    let why = "node authorizer does not support user rule resolution";
    assert_eq!(node["evaluationError"], why);
}
