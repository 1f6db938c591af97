//! Service accounts end to end: a pod that asks the node's own API with its own token.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::isolation::{installed, isolated};
use crate::support::{FOREVER, IMAGE, Node, eventually, pod};

/// The account `robot` may read pods of `default`.
const POLICY: &str = r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"system:serviceaccount:default:robot","namespace":"default","resource":"pods","readonly":true}}"#;

/// `volumeMounts` and `volumes` that bring the host's curl into a pod, with what it is linked to.
fn curl_of_host() -> (String, String) {
    let (mut mounts, mut volumes): (String, String) =
        ("    volumeMounts:\n".into(), "  volumes:\n".into());
    for (name, at, from) in [
        ("usr", "/usr", "/usr"),
        ("lib", "/lib", "/usr/lib"),
        ("lib64", "/lib64", "/usr/lib64"),
    ] {
        if std::path::Path::new(from).is_dir() {
            mounts += &format!("    - {{name: {name}, mountPath: {at}, readOnly: true}}\n");
            volumes += &format!("  - {{name: {name}, hostPath: {{path: {from}}}}}\n");
        }
    }
    (mounts, volumes)
}

const FILES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Prints the status code that a pod gets for a path with a token.
fn script(token: &str, path: &str) -> String {
    format!(
        "/usr/bin/curl --silent --show-error --max-time 20 --cacert {FILES}/ca.crt --output /dev/null \
         --write-out '%{{http_code}}' -H \"Authorization: Bearer {token}\" \
         https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT{path}"
    )
}

/// Asks the local socket, which may do everything. Status code and body.
pub fn root(node: &Node, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--unix-socket",
        ])
        .arg(node.run.join("api.sock"))
        .args(["-X", method, "-H", "Content-Type: application/json"])
        .args(["--write-out", "\n%{http_code}", "--data", &body.to_string()])
        .arg(format!("http://localhost{path}"))
        .output()
        .expect("curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').expect("a code");
    let body = serde_json::from_str(body).unwrap_or_default();
    (code.parse().expect("a code"), body)
}

fn node(place: &std::path::Path) -> Node {
    let policy = place.join("policy.jsonl");
    fs::write(&policy, format!("{POLICY}\n")).unwrap();
    Node::new(place)
        .flag("--authorization-mode=ABAC")
        .flag(&format!("--authorization-policy-file={}", policy.display()))
}

#[test]
fn a_pod_asks_the_api_with_the_token_of_its_account() {
    isolated(|place| {
        if !installed("curl") {
            return println!("skipped: curl is not installed");
        }
        let mut node = node(place);
        node.start_plain();
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        let make_account = |node: &Node| {
            let body = json!({"metadata": {"name": "robot"}});
            let (code, made) = root(node, "POST", accounts, &body);
            assert_eq!(code, 201, "{made}");
        };
        let (mounts, volumes) = curl_of_host();
        let more =
            format!("  serviceAccountName: robot\n  automountServiceAccountToken: true\n{volumes}");
        node.manifest("a.yaml", &pod("client", FOREVER, &mounts, &more));
        node.event("client", "serviceaccounts \"robot\" not found");
        make_account(&node);
        node.up("client");
        let own = format!("$(cat {FILES}/token)");
        let pods = "/api/v1/namespaces/default/pods";
        let ask = |node: &Node, token: &str, path: &str| node.sh("client", &script(token, path));
        assert_eq!(ask(&node, &own, pods), "200");
        assert_eq!(
            ask(&node, &own, "/api/v1/namespaces/default/secrets"),
            "403"
        );
        assert_eq!(ask(&node, "wrong", pods), "401");
        assert_eq!(
            node.sh("client", &format!("cat {FILES}/namespace")),
            "default"
        );

        // Nothing of it is on a disk: the volume is a tmpfs, and no other file has the token.
        let kind = node.sh("client", &format!("grep ' {FILES} ' /proc/mounts"));
        assert!(kind.starts_with("tmpfs ") && kind.contains("ro"), "{kind}");

        // Another agent has another token, and the pod sees it.
        let first = node.sh("client", &format!("cat {FILES}/token"));
        node.kill();
        node.start_plain();
        eventually("a token of the new agent", || {
            let now = node.sh("client", &format!("cat {FILES}/token"));
            now != first && ask(&node, &own, pods) == "200"
        });

        // An account made anew is another: its tokens follow, and the old one ends.
        let before = node.sh("client", &format!("cat {FILES}/token"));
        root(&node, "DELETE", &format!("{accounts}/robot"), &json!({}));
        eventually("the account is gone", || ask(&node, &before, pods) == "401");
        make_account(&node);
        eventually("a token of the new account", || {
            ask(&node, &own, pods) == "200"
        });
        assert_eq!(ask(&node, &before, pods), "401");
        node.terminate();
        node.finish();
    });
}

#[test]
fn a_pod_of_the_api_gets_a_token_unless_it_says_no_and_it_ends_with_the_pod() {
    isolated(|place| {
        if !installed("curl") {
            return println!("skipped: curl is not installed");
        }
        let mut node = node(place);
        node.start();
        let make = |name: &str, automount: bool| {
            let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", FOREVER]});
            let body = json!({
                "metadata": {"name": name},
                "spec": {
                    "automountServiceAccountToken": automount,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container],
                },
            });
            let (code, made) = root(&node, "POST", "/api/v1/namespaces/default/pods", &body);
            assert_eq!(code, 201, "{made}");
        };
        make("with-n", true);
        make("without-n", false);
        node.up("with");
        node.up("without");
        let has = |name: &str| node.sh(name, &format!("ls {FILES} 2>/dev/null | wc -l"));
        assert_eq!((has("with").trim(), has("without").trim()), ("3", "0"));
        let token = node.sh("with", &format!("cat {FILES}/token"));
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token},
        });
        let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
        let (_, answer) = root(&node, "POST", reviews, &review);
        let user = &answer["status"]["user"];
        assert_eq!(user["username"], "system:serviceaccount:default:default");
        let extra = &user["extra"]["authentication.kubernetes.io/pod-name"];
        assert_eq!(*extra, json!(["with-n"]));

        let path = "/api/v1/namespaces/default/pods/with-n";
        let (code, _) = root(&node, "DELETE", path, &json!({}));
        assert_eq!(code, 200);
        node.gone("with");
        let (_, answer) = root(&node, "POST", reviews, &review);
        assert_eq!(answer["status"].get("authenticated"), None, "{answer}");
        node.finish();
    });
}

/// A TokenRequest for an account of `default`.
pub fn ask_for_token(node: &Node, name: &str, spec: &Value) -> (u16, Value) {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{name}/token");
    root(node, "POST", &path, &json!({"spec": spec}))
}

/// The status of a TokenReview.
fn review(node: &Node, token: &Value, audiences: &[&str]) -> Value {
    let body = json!({"spec": {"token": token, "audiences": audiences}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    root(node, "POST", reviews, &body).1["status"].clone()
}

fn bound_to_secret(uid: &str) -> Value {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "name": "login", "uid": uid});
    json!({"boundObjectRef": secret})
}

#[test]
fn tokens_are_for_their_audience_and_end_with_what_they_are_bound_to() {
    isolated(|place| {
        if !installed("curl") {
            return println!("skipped: curl is not installed");
        }
        let mut node = node(place);
        node.start();
        let (code, made) = ask_for_token(&node, "default", &json!({"audiences": ["vault"]}));
        let life = &made["spec"]["expirationSeconds"];
        assert_eq!((code, life), (201, &json!(3600)));
        let token = &made["status"]["token"];
        let for_vault = review(&node, token, &["vault"]);
        assert_eq!(for_vault["audiences"], json!(["vault"]));
        let for_api = review(&node, token, &[]);
        assert_eq!(for_api.get("authenticated"), None);

        let secrets = "/api/v1/namespaces/default/secrets";
        let body = json!({"metadata": {"name": "login"}, "stringData": {"a": "b"}});
        assert_eq!(root(&node, "POST", secrets, &body).0, 201);
        let (code, refused) = ask_for_token(&node, "default", &bound_to_secret("other"));
        let told = refused["message"].as_str().unwrap_or_default();
        let why = "the UID in the bound object reference (other) does not match the UID in record";
        assert!(code == 409 && told.contains(why), "{refused}");
        let (code, made) = ask_for_token(&node, "default", &bound_to_secret(""));
        assert_eq!(code, 201, "{made}");
        let token = &made["status"]["token"];
        assert_eq!(review(&node, token, &[])["authenticated"], true);
        root(&node, "DELETE", &format!("{secrets}/login"), &json!({}));
        assert_eq!(review(&node, token, &[]).get("authenticated"), None);
        node.finish();
    });
}

#[test]
fn tokens_out_of_bounds_and_of_nobody_are_refused() {
    isolated(|place| {
        if !installed("curl") {
            return println!("skipped: curl is not installed");
        }
        let mut node = node(place);
        node.start();
        let life = |seconds: u64| json!({"expirationSeconds": seconds});
        let short = "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: \
                     Invalid value: 599: may not specify a duration less than 10 minutes";
        let long = "may not specify a duration larger than 2^32 seconds";
        let nobody = "serviceaccounts \"nobody\" not found";
        for (name, spec, expected, message) in [
            ("default", life(599), 422, short),
            ("default", life((1 << 32) + 1), 422, long),
            ("nobody", json!({}), 404, nobody),
        ] {
            let (code, answer) = ask_for_token(&node, name, &spec);
            let told = answer["message"].as_str().unwrap_or_default();
            assert_eq!(code, expected, "{answer}");
            assert!(told.contains(message), "{told}");
        }
        node.finish();
    });
}

#[test]
fn a_deleted_namespace_takes_its_pods_along() {
    isolated(|place| {
        if !installed("curl") {
            return println!("skipped: curl is not installed");
        }
        let mut node = node(place);
        node.start();
        let body = json!({"metadata": {"name": "shop"}});
        assert_eq!(root(&node, "POST", "/api/v1/namespaces", &body).0, 201);
        eventually("the account of the namespace", || {
            let path = "/api/v1/namespaces/shop/serviceaccounts/default";
            root(&node, "GET", path, &json!({})).0 == 200
        });
        let container = json!({"name": "c", "image": IMAGE, "command": ["sh", "-c", FOREVER]});
        let body = json!({
            "metadata": {"name": "till-n"},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        });
        let pods = "/api/v1/namespaces/shop/pods";
        assert_eq!(root(&node, "POST", pods, &body).0, 201);
        node.up("till");
        assert_eq!(
            root(&node, "DELETE", "/api/v1/namespaces/shop", &json!({})).0,
            200
        );
        eventually("the namespace is gone", || {
            root(&node, "GET", "/api/v1/namespaces/shop", &json!({})).0 == 404
        });
        assert_eq!(node.pod("till"), None);
        let refused = root(&node, "DELETE", "/api/v1/namespaces/default", &json!({}));
        assert_eq!(refused.0, 403, "{refused:?}");
        node.finish();
    });
}
