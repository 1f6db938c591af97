//! Every authentication × authorization × verb × resource, against an oracle of few lines.
//!
//! The oracle knows who a credential is and what the rules give, in the words of the manual; it
//! shares no code with the server. Each kind of caller goes through TLS once for each set of modes;
//! the rest comes through a [`Door`] behind the handshake.

use lowtide::apiserver::authz::Mode;
use serde_json::json;

use crate::callers::{ACCOUNT, AUTHENTICATED, Caller, NODE, callers, node};
use crate::office::{Answer, Door, From, Line, Office};

/// jane reads pods of one namespace; dev may do all to resources; paul sees one path; whoever is
/// known another; nobody may read ConfigMaps without a name; an account has the Secrets of its
/// namespace, by a rule of the old format.
const POLICY: &str = r#"
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"jane","namespace":"default","resource":"pods","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"dev","namespace":"*","resource":"*","apiGroup":"*"}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"paul","nonResourcePath":"/openapi/*","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"group":"system:authenticated","nonResourcePath":"/api","readonly":true}}
{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"system:anonymous","namespace":"*","resource":"configmaps","readonly":true}}
{"user":"system:serviceaccount:default:default","namespace":"default","resource":"secrets"}
"#;

const MODES: [&[Mode]; 8] = [
    &[],
    &[Mode::AlwaysAllow],
    &[Mode::AlwaysDeny],
    &[Mode::Abac],
    &[Mode::Node],
    &[Mode::AlwaysDeny, Mode::Abac],
    &[Mode::Abac, Mode::Node],
    &[Mode::AlwaysDeny, Mode::AlwaysAllow],
];

/// What may be asked for. `verbs`: each with the code of an answer to who may.
struct Target {
    group: &'static str,
    namespace: &'static str,
    resource: &'static str,
    name: &'static str,
    verbs: &'static [(&'static str, u16)],
}

/// A row: `GROUP|NAMESPACE|RESOURCE|NAME`.
const fn row(
    [group, namespace, resource, name]: [&'static str; 4],
    verbs: &'static [(&'static str, u16)],
) -> Target {
    Target {
        group,
        namespace,
        resource,
        name,
        verbs,
    }
}

/// The object is there. A watch from no version is refused, a body without a name as well.
const THERE: &[(&str, u16)] = &[
    ("list", 200),
    ("watch", 400),
    ("create", 422),
    ("deletecollection", 200),
    ("get", 200),
    ("update", 400),
    ("patch", 200),
    ("delete", 200),
];
/// It is not.
const ABSENT: &[(&str, u16)] = &[
    ("list", 200),
    ("create", 422),
    ("deletecollection", 200),
    ("get", 404),
    ("update", 400),
    ("patch", 404),
    ("delete", 404),
];
const READ: &[(&str, u16)] = &[("list", 200), ("watch", 400)];
const STATUS: &[(&str, u16)] = &[("get", 404), ("update", 400), ("patch", 404)];
/// Streams into a pod that is not there.
const STREAM: &[(&str, u16)] = &[("get", 404), ("create", 404)];
const LEASES: &str = "coordination.k8s.io";

const TARGETS: &[Target] = &[
    row(["", "default", "pods", "web"], THERE),
    row(["", "default", "pods", "away"], &[("get", 200)]),
    row(["", "other", "pods", "absent"], ABSENT),
    row(["", "", "pods", ""], READ),
    row(["", "default", "pods/log", "absent"], &[("get", 404)]),
    row(["", "default", "pods/exec", "absent"], STREAM),
    row(["", "default", "pods/attach", "absent"], STREAM),
    row(["", "default", "pods/portforward", "absent"], STREAM),
    row(["", "default", "pods/status", "absent"], STATUS),
    row(
        ["", "default", "pods/ephemeralcontainers", "absent"],
        STATUS,
    ),
    row(["", "default", "pods/resize", "absent"], STATUS),
    row(
        ["", "default", "pods/eviction", "absent"],
        &[("create", 404)],
    ),
    row(["", "default", "secrets", "used"], THERE),
    row(
        ["", "default", "secrets", "unused"],
        &[("get", 200), ("patch", 200)],
    ),
    row(["", "other", "secrets", "absent"], ABSENT),
    row(["", "default", "configmaps", "used"], THERE),
    row(["", "", "configmaps", ""], READ),
    row(["", "default", "serviceaccounts", "default"], THERE),
    row(
        ["", "default", "serviceaccounts/token", "default"],
        &[("create", 201)],
    ),
    row(["", "default", "resourcequotas", "absent"], ABSENT),
    row(["", "", "nodes", "pi"], THERE),
    row(["", "", "nodes", "absent"], ABSENT),
    row(
        ["", "", "nodes/status", "pi"],
        &[("get", 200), ("update", 400), ("patch", 200)],
    ),
    row(["", "", "nodes/proxy/stats/summary", "pi"], &[("get", 200)]),
    row(
        ["", "", "namespaces", "absent"],
        &[("list", 200), ("get", 404), ("delete", 404)],
    ),
    row(
        ["", "other", "events", "absent"],
        &[("list", 200), ("get", 404), ("patch", 404)],
    ),
    row(
        ["events.k8s.io", "other", "events", "absent"],
        &[("list", 200), ("get", 404), ("patch", 404)],
    ),
    row([LEASES, "kube-node-lease", "leases", "pi"], ABSENT),
    row(
        [LEASES, "default", "leases", "pi"],
        &[("list", 200), ("get", 404)],
    ),
    row(
        ["scheduling.k8s.io", "", "priorityclasses", "absent"],
        ABSENT,
    ),
    row(
        ["authentication.k8s.io", "", "selfsubjectreviews", ""],
        &[("create", 201)],
    ),
    row(
        ["authentication.k8s.io", "", "tokenreviews", ""],
        &[("create", 400)],
    ),
    row(
        ["authorization.k8s.io", "", "selfsubjectaccessreviews", ""],
        &[("create", 422)],
    ),
];

/// Paths that are no resources, and what who may is answered.
const PATHS: [(&str, u16); 9] = [
    ("/version", 200),
    ("/api", 200),
    ("/apis", 200),
    ("/api/v1", 200),
    ("/healthz", 200),
    ("/metrics", 200),
    ("/openapi/v3", 200),
    ("/lowtide/v1/status", 200),
    ("/nowhere", 404),
];

/// What mode Node gives to node `pi`, on which `web` runs with Secret and ConfigMap `used`:
/// `VERBS GROUP/RESOURCE NAMESPACE/NAME`, `*` for any. Source: Kubernetes' node authorizer.
const OF_NODES: [&str; 14] = [
    "get /pods default/web",
    "create,delete /pods *",
    "update,patch /pods/status *",
    "create /pods/eviction *",
    "get /secrets default/used",
    "get /configmaps default/used",
    "get /serviceaccounts default/default",
    "create /serviceaccounts/token default/default",
    "create,update,patch /nodes *",
    "update,patch /nodes/status *",
    "get /nodes /pi",
    "create,update,patch /events *",
    "create,update,patch events.k8s.io/events *",
    "get,create,update,patch,delete coordination.k8s.io/leases kube-node-lease/pi",
];

/// As above, where the name counts for nothing.
const OF_NODES_UNNAMED: [&str; 2] = [
    "create coordination.k8s.io/leases kube-node-lease/",
    "create authentication.k8s.io/tokenreviews /",
];

/// One question.
struct Cell<'a> {
    verb: &'a str,
    group: &'a str,
    namespace: &'a str,
    resource: &'a str,
    name: &'a str,
    /// Of what is no resource.
    path: &'a str,
}

fn reads(verb: &str) -> bool {
    ["get", "list", "watch"].contains(&verb)
}

/// The oracle of mode ABAC, for [`POLICY`].
fn abac_gives(user: &str, groups: &[&str], cell: &Cell) -> bool {
    if !cell.path.is_empty() {
        return cell.path == "/api" && groups.contains(&AUTHENTICATED)
            || cell.path.starts_with("/openapi/") && user == "paul";
    }
    let base = cell.resource.split('/').next().unwrap_or_default();
    let core = |resource: &str| cell.group.is_empty() && base == resource;
    groups.contains(&"dev")
        || user == "jane" && core("pods") && cell.namespace == "default" && reads(cell.verb)
        || user == "system:anonymous" && core("configmaps") && reads(cell.verb)
        || user == ACCOUNT && base == "secrets" && cell.namespace == "default"
}

/// The oracle of mode Node.
fn node_gives(user: &str, cell: &Cell) -> bool {
    let what = format!("{}/{}", cell.group, cell.resource);
    let place = format!("{}/{}", cell.namespace, cell.name);
    let mut rules = OF_NODES.iter().chain(&OF_NODES_UNNAMED);
    user == NODE
        && cell.path.is_empty()
        && rules.any(|rule| {
            let [verbs, of, at] = rule.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{rule}");
            };
            of == what && (at == "*" || at == place) && verbs.split(',').any(|v| v == cell.verb)
        })
}

/// The oracle: whether the caller may. A stream that is opened by GET needs what POST needs too.
fn may(modes: &[Mode], user: &str, groups: &[&str], cell: &Cell) -> bool {
    let streams = ["pods/exec", "pods/attach", "pods/portforward"].contains(&cell.resource);
    let given = |verb| {
        let cell = Cell { verb, ..*cell };
        modes.iter().any(|mode| match mode {
            Mode::AlwaysAllow => true,
            Mode::Abac => abac_gives(user, groups, &cell),
            Mode::Node => node_gives(user, &cell),
            Mode::AlwaysDeny => false,
        })
    };
    is_master(groups) || given(cell.verb) && (!streams || given("create"))
}

/// What a refusal says; what mode Node has to say to nodes is left open.
fn refusal(modes: &[Mode], user: &str, cell: &Cell, verb: &str) -> String {
    let why = modes.iter().filter_map(|mode| match mode {
        Mode::AlwaysDeny => Some("Everything is forbidden."),
        Mode::Abac => Some("No policy matched."),
        Mode::AlwaysAllow | Mode::Node => None,
    });
    let why = match why.collect::<Vec<_>>().join("\n") {
        none if none.is_empty() => none,
        why => format!(": {why}"),
    };
    if !cell.path.is_empty() {
        return format!(
            "forbidden: User {user:?} cannot {verb} path {:?}{why}",
            cell.path
        );
    }
    let subresource = cell
        .resource
        .split('/')
        .take(2)
        .collect::<Vec<_>>()
        .join("/");
    let resource = cell.resource.split('/').next().unwrap_or_default();
    let qualified = match cell.group {
        "" => resource.to_owned(),
        group => format!("{resource}.{group}"),
    };
    let named = match cell.name {
        "" => String::new(),
        name => format!(" {name:?}"),
    };
    let place = match cell.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!(
        "{qualified}{named} is forbidden: User {user:?} cannot {verb} resource {subresource:?} in \
         API group {:?} {place}{why}",
        cell.group
    )
}

/// Method, path with query, and the question that this is.
fn request<'a>(target: &'a Target, verb: &'a str) -> (&'static str, String, Cell<'a>) {
    let (method, query) = match verb {
        "list" => ("GET", "limit=1"),
        "watch" => ("GET", "watch=1&resourceVersion=x"),
        "get" => ("GET", ""),
        "create" => ("POST", "dryRun=All"),
        "update" => ("PUT", "dryRun=All"),
        "patch" => ("PATCH", "dryRun=All"),
        _ => ("DELETE", "dryRun=All"),
    };
    let (base, sub) = target
        .resource
        .split_once('/')
        .unwrap_or((target.resource, ""));
    let of_one = !sub.is_empty() || ["get", "update", "patch", "delete"].contains(&verb);
    let name = if of_one { target.name } else { "" };
    let mut path = match (target.group, target.namespace) {
        ("", "") => "/api/v1".to_owned(),
        ("", namespace) => format!("/api/v1/namespaces/{namespace}"),
        (group, "") => format!("/apis/{group}/v1"),
        (group, namespace) => format!("/apis/{group}/v1/namespaces/{namespace}"),
    };
    for part in [base, name, sub].iter().filter(|part| !part.is_empty()) {
        path = format!("{path}/{part}");
    }
    // A request for one namespace is one in that namespace.
    let namespace = if base == "namespaces" {
        name
    } else {
        target.namespace
    };
    let cell = Cell {
        verb,
        group: target.group,
        namespace,
        resource: target.resource,
        name,
        path: "",
    };
    (method, format!("{path}?{query}"), cell)
}

/// How often which outcome was seen, and what was seen otherwise.
#[derive(Default)]
struct Seen {
    allowed: usize,
    forbidden: usize,
    unauthorized: usize,
    wrong: Vec<String>,
}

impl Seen {
    fn check(&mut self, modes: &[Mode], caller: &Caller, cell: &Cell, code: u16, got: &Answer) {
        let (count, judged) = match caller.is {
            None => (&mut self.unauthorized, is_unauthorized(got)),
            Some((user, groups)) if may(modes, user, groups, cell) => {
                // A node is given tokens of its pods only, whatever the modes say.
                let unbound = user == NODE && cell.resource == "serviceaccounts/token";
                let code = if unbound { 403 } else { code };
                (&mut self.allowed, got.code == code)
            }
            Some((user, _)) => (&mut self.forbidden, is_forbidden(modes, user, cell, got)),
        };
        *count += 1;
        if !judged {
            let Cell {
                verb,
                resource,
                name,
                path,
                ..
            } = cell;
            let (shows, body) = (caller.shows, String::from_utf8_lossy(&got.body));
            let what = format!("{verb} {resource}{path} {name:?}: {} {body}", got.code);
            self.wrong.push(format!("{modes:?}, {shows}: {what}"));
        }
    }

    /// The counts; fails if anything was wrong.
    fn end(self) -> [usize; 3] {
        let first = self.wrong.iter().take(20).map(|wrong| wrong.trim_end());
        let first = first.collect::<Vec<_>>().join("\n");
        assert!(
            self.wrong.is_empty(),
            "{} wrong:\n{first}",
            self.wrong.len()
        );
        [self.allowed, self.forbidden, self.unauthorized]
    }
}

/// Who is nobody learns nothing and holds no connection.
fn is_unauthorized(got: &Answer) -> bool {
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
    });
    got.code == 401 && got.json() == expected && got.closes
}

fn is_forbidden(modes: &[Mode], user: &str, cell: &Cell, got: &Answer) -> bool {
    let status = got.json();
    let message = status["message"].as_str().unwrap_or_default();
    // Of a stream, the right that is missing may be the one to create it.
    let expected = [cell.verb, "create"].map(|verb| refusal(modes, user, cell, verb));
    let own_words = user == NODE && modes.contains(&Mode::Node);
    let told = expected.iter().any(|text| match own_words {
        true => text
            .split(": ")
            .nth(1)
            .is_some_and(|text| message.contains(text)),
        false => message == text,
    });
    told && (got.code, &status["reason"]) == (403, &json!("Forbidden"))
}

fn is_master(groups: &[&str]) -> bool {
    groups.contains(&"system:masters")
}

/// All cells of one caller, on one connection as long as it is kept.
async fn ask_everything(door: &Door, modes: &[Mode], caller: &Caller, seen: &mut Seen) {
    let resources = TARGETS.iter().flat_map(|target| {
        let verbs = target.verbs.iter();
        verbs.map(move |(verb, code)| (request(target, verb), *code))
    });
    let paths = PATHS.iter().map(|(path, code)| {
        let cell = Cell {
            verb: "get",
            group: "",
            namespace: "",
            resource: "",
            name: "",
            path,
        };
        (("GET", (*path).to_owned(), cell), *code)
    });
    // Who is nobody is so everywhere; of five masters one asks for everything.
    let (every, most) = match caller.is {
        None => (40, 3),
        Some((_, groups)) if is_master(groups) && !caller.is_local() => (7, usize::MAX),
        Some(_) => (1, usize::MAX),
    };
    let mut line = door.walk_in(&caller.from);
    for ((method, path, cell), code) in paths.chain(resources).step_by(every).take(most) {
        let answer = line.ask(method, &path, &caller.authorization).await;
        seen.check(modes, caller, &cell, code, &answer);
        if answer.closes {
            line = door.walk_in(&caller.from);
        }
    }
}

#[test]
fn every_caller_gets_what_the_rules_give_and_nothing_else() {
    let (office, node) = (Office::open(), node());
    let mut seen = Seen::default();
    let known = callers(&office, &node, false);
    let open = callers(&office, &node, true);
    for modes in MODES {
        for (anonymous, callers) in [(false, &known), (true, &open)] {
            let authenticator = office.authenticator(&node, anonymous);
            let door = Door::new(&node, authenticator, modes, POLICY);
            // With anonymous requests let in, only those without a name change.
            let callers = callers.iter().filter(|caller| {
                let user = caller.is.map(|(user, _)| user);
                !anonymous || [None, Some("system:anonymous")].contains(&user)
            });
            let work = async {
                for caller in callers {
                    ask_everything(&door, modes, caller, &mut seen).await;
                }
            };
            async_io::block_on(door.executor.run(work));
        }
    }
    let [allowed, forbidden, unauthorized] = seen.end();
    assert!(
        allowed > 3_000 && forbidden > 5_000 && unauthorized > 500,
        "{allowed} allowed, {forbidden} forbidden, {unauthorized} unauthorized"
    );
}

#[test]
fn over_tls_it_is_the_same() {
    let (office, node) = (Office::open(), node());
    let mut seen = Seen::default();
    let callers = callers(&office, &node, false);
    let serving = office.serving();
    for modes in MODES {
        let door = Door::new(&node, office.authenticator(&node, false), modes, POLICY);
        let address = door.listen(serving.clone());
        let work = async {
            for caller in &callers {
                let From::Network(identity) = &caller.from else {
                    continue;
                };
                let connector = office.connector(identity.as_ref());
                let mut line = Line::shake_hands(&connector, address).await;
                let (method, path, cell) = request(&TARGETS[0], "get");
                let answer = line.ask(method, &path, &caller.authorization).await;
                seen.check(modes, caller, &cell, 200, &answer);
            }
        };
        async_io::block_on(door.executor.run(work));
    }
    let [allowed, forbidden, unauthorized] = seen.end();
    assert!(
        allowed > 40 && forbidden > 20 && unauthorized > 50,
        "{allowed} {forbidden}"
    );
}
