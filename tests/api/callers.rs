//! The callers of the matrix: what each shows, and who that is by the office's files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lowtide::object::{Key, Kind, Object};
use serde_json::{Value, json};

use crate::node::{Node, Setup};
use crate::office::{From, Office, Signed};

pub const AUTHENTICATED: &str = "system:authenticated";
pub const ACCOUNT: &str = "system:serviceaccount:default:default";
pub const NODE: &str = "system:node:pi";

/// Who somebody is: name and groups; `None`: nobody.
pub type Identity = Option<(&'static str, &'static [&'static str])>;

/// What a caller shows, and who that is.
pub struct Caller {
    pub shows: &'static str,
    pub from: From,
    pub authorization: String,
    pub is: Identity,
}

impl Caller {
    pub fn is_local(&self) -> bool {
        matches!(self.from, From::LocalSocket)
    }
}

/// One node for all: a pod of ours, what it refers to, and a pod of another node.
pub fn node() -> Node {
    let node = Node::with(Setup::default());
    let post = |path: &str, body: Value| {
        let made = node.send("POST", path, &body);
        let code = made.code;
        assert_eq!(code, 201, "{path}: {}", made.text());
    };
    let core = |resource: &str, name: &str| {
        let path = format!("/api/v1/namespaces/default/{resource}");
        post(&path, json!({"metadata": {"name": name}}));
    };
    core("secrets", "used");
    core("secrets", "unused");
    core("configmaps", "used");
    core("serviceaccounts", "default");
    post("/api/v1/nodes", json!({"metadata": {"name": "pi"}}));
    for (name, on) in [("web", "pi"), ("away", "elsewhere")] {
        let volumes = json!([
            {"name": "s", "secret": {"secretName": "used"}},
            {"name": "c", "configMap": {"name": "used"}},
        ]);
        let spec = json!({
            "nodeName": on, "volumes": volumes, "serviceAccountName": "default",
            "containers": [{"name": "web", "image": "busybox"}],
        });
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        post("/api/v1/namespaces/default/pods", pod);
    }
    node
}

pub fn account(node: &Node) -> Object {
    let key = Key::local(Kind::ServiceAccount, "default", "default");
    (*node.reader.get(&key).expect("the account")).clone()
}

const fn of_master(name: &'static str) -> Identity {
    Some((name, &["system:masters", AUTHENTICATED]))
}

const fn of_dev(name: &'static str) -> Identity {
    Some((name, &["dev", AUTHENTICATED]))
}

const fn of_nobody_in(name: &'static str) -> Identity {
    Some((name, &[AUTHENTICATED]))
}

/// Everybody. `anonymous`: who shows nothing has a name.
pub fn callers(office: &Office, node: &Node, anonymous: bool) -> Vec<Caller> {
    let nobody = anonymous.then_some(("system:anonymous", &["system:unauthenticated"][..]));
    let local = Caller {
        shows: "the local socket",
        from: From::LocalSocket,
        authorization: String::new(),
        is: of_master("system:admin"),
    };
    let mut all = vec![local];
    all.extend(by_certificate(office, nobody));
    all.extend(by_header(office, node, nobody));
    all
}

fn by_certificate(office: &Office, nobody: Identity) -> impl Iterator<Item = Caller> {
    let shown = |signed, user, group| Some(office.client(&signed, user, group));
    let bob = |signed| shown(signed, "bob", "dev");
    let admin = shown(Signed::Well, "system:admin", "system:masters");
    let of_node: Identity = Some((NODE, &["system:nodes", AUTHENTICATED]));
    let bad_one_and_token = ("a bad one and a token", bob(Signed::ByAStranger), JANE);
    let all = [
        ("nothing", None, nobody),
        ("the administrator's", admin, of_master("system:admin")),
        ("a certificate", bob(Signed::Well), of_dev("bob")),
        (
            "a node's",
            shown(Signed::Well, NODE, "system:nodes"),
            of_node,
        ),
        ("one of another CA", bob(Signed::ByAStranger), None),
        ("an old one", bob(Signed::TooLate), None),
        ("an early one", bob(Signed::TooEarly), None),
        ("one without a name", shown(Signed::Well, "", "dev"), nobody),
        bad_one_and_token,
    ];
    all.into_iter().map(move |(shows, identity, is)| Caller {
        shows,
        authorization: match shows {
            "a bad one and a token" => "Bearer t0ken".to_owned(),
            _ => String::new(),
        },
        from: From::Network(identity),
        is,
    })
}

const JANE: Identity = of_nobody_in("jane");

/// What is no credential that is read here is nothing.
fn by_header(office: &Office, node: &Node, nobody: Identity) -> impl Iterator<Item = Caller> {
    let ours = account(node);
    let mut gone = ours.clone();
    gone.body["metadata"]["uid"] = json!("5c2f6b52-0e5b-4c0b-8d6f-0d3a0c1f7a11");
    let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair));
    let bearer = |token: &str| format!("Bearer {token}");
    let token = |audience, hours| bearer(&office.token(&ours, audience, hours));
    let all = [
        ("a token of the file", bearer("t0ken"), JANE),
        ("a developer's", bearer("d3v"), of_dev("dora")),
        (
            "the administrator's token",
            bearer("adm1n"),
            of_master("amy"),
        ),
        ("a wrong token", bearer("t0kem"), None),
        ("an empty token", bearer(""), nobody),
        ("another scheme", "Digest t0ken".to_owned(), nobody),
        ("a password", basic("paul:pa55"), of_nobody_in("paul")),
        ("a master's password", basic("rosa:r00t"), of_master("rosa")),
        ("a wrong password", basic("paul:pa56"), None),
        ("another's password", basic("paul:r00t"), None),
        ("no pair", basic("paul"), nobody),
        ("an account's token", token("", 0), of_nobody_in(ACCOUNT)),
        ("an account's for another", token("vault", 0), None),
        ("an account's, too old", token("", -2), None),
        ("an account's, forged", bearer(&office.forged(&ours)), None),
        (
            "a gone account's",
            bearer(&office.token(&gone, "", 0)),
            None,
        ),
    ];
    all.into_iter().map(|(shows, authorization, is)| Caller {
        shows,
        authorization,
        from: From::Network(None),
        is,
    })
}
