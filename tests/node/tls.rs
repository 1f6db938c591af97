//! The API over TLS: real kubectl, curl and openssl against a real node.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::isolation::{installed, isolated, run};
use crate::support::{FOREVER, LOWTIDE, Node, eventually, pids_of, pod, signal};

const SERVER: &str = "https://127.0.0.1:6443";

/// Writes a file that only its owner may read.
fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Status code and body.
fn curl(node: &Node, arguments: &[&str], path: &str) -> (u16, String) {
    node.curl(arguments, &format!("{SERVER}{path}"))
}

fn bearer(node: &Node, token: &str, path: &str) -> (u16, String) {
    curl(
        node,
        &["-H", &format!("Authorization: Bearer {token}")],
        path,
    )
}

/// `LOWTIDE_KUBECTL`, or what `tests/kubectl` has left.
pub fn kubectl() -> Option<PathBuf> {
    let named = std::env::var_os("LOWTIDE_KUBECTL").map(PathBuf::from);
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let left = top.join("target/vm/kubectl/usr/bin/kubectl");
    let found = named.unwrap_or(left);
    found.is_file().then_some(found)
}

pub fn missing(names: &[&str]) -> bool {
    let gone = names.iter().find(|name| !installed(name));
    if let Some(name) = gone {
        println!("skipped: {name} is not installed");
    }
    gone.is_some()
}

fn hang_up(node: &Node, said: &str) {
    let before = node.log().matches(said).count();
    for pid in pids_of(" run --root-dir") {
        signal(pid, "HUP");
    }
    eventually("SIGHUP is heard", || {
        node.log().matches(said).count() > before
    });
}

#[test]
fn kubectl_gets_along_with_the_admin_kubeconfig() {
    isolated(|place| {
        let Some(kubectl) = kubectl() else {
            return println!("skipped: no kubectl; run tests/kubectl or set LOWTIDE_KUBECTL");
        };
        let mut node = Node::started(place);
        node.manifest("a.yaml", &pod("web", FOREVER, "", ""));
        node.up("web");
        let config = node.root.join("admin.kubeconfig");
        let ask = |arguments: &[&str]| -> Output {
            let mut command = Command::new(&kubectl);
            command.arg("--kubeconfig").arg(&config).args(arguments);
            command.env("HOME", place).output().expect("kubectl")
        };
        let ok = |arguments: &[&str]| {
            let output = ask(arguments);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{arguments:?}: {errors}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let pods = ok(&["get", "pods", "-A"]);
        assert!(
            pods.starts_with("NAMESPACE") && pods.contains("web-n"),
            "{pods}"
        );
        let nodes = ok(&["get", "nodes"]);
        assert!(nodes.contains("Ready"), "{nodes}");
        let me = ok(&["auth", "whoami", "-o", "json"]);
        let me: Value = serde_json::from_str(&me).expect("JSON");
        assert_eq!(me["status"]["userInfo"]["username"], "system:admin");
        let groups = me["status"]["userInfo"]["groups"].to_string();
        assert!(groups.contains("\"system:masters\""), "{groups}");
        assert_eq!(ok(&["exec", "web-n", "--", "echo", "hello"]), "hello\n");
        assert!(ok(&["logs", "web-n"]).contains("started"));

        // Another start has the same CA, and the kubeconfig goes on working.
        let before = fs::read_to_string(&config).unwrap();
        node.terminate();
        node.start();
        assert_eq!(fs::read_to_string(&config).unwrap(), before);
        assert!(ok(&["get", "nodes"]).contains("Ready"));
        node.finish();
    });
}

/// A CA, and certificates of it: `NAME.crt`, `NAME.key`.
pub fn make_certificates(place: &Path, subjects: &[(&str, &str)]) {
    let script = "set -e; cd \"$1\"; shift
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj /CN=office -keyout office.key -out office.crt 2>/dev/null
        printf 'extendedKeyUsage=clientAuth\\n' >usage
        while [ $# -gt 0 ]; do
            openssl req -newkey rsa:2048 -nodes -subj \"$2\" -keyout $1.key -out $1.csr 2>/dev/null
            openssl x509 -req -in $1.csr -CA office.crt -CAkey office.key -days 1 -extfile usage \
                -set_serial $# -out $1.crt 2>/dev/null
            shift 2
        done";
    let mut arguments = vec!["-c", script, "sh", place.to_str().expect("UTF-8")];
    arguments.extend(
        subjects
            .iter()
            .flat_map(|(name, subject)| [*name, *subject]),
    );
    run("sh", &arguments);
}

#[test]
fn who_is_nobody_gets_401_and_who_may_nothing_403() {
    isolated(|place| {
        if missing(&["curl", "openssl"]) {
            return;
        }
        make_certificates(
            place,
            &[("bob", "/O=dev/CN=bob"), ("root", "/O=system:masters/CN=r")],
        );
        let tokens = place.join("tokens.csv");
        let passwords = place.join("passwords.csv");
        secret(
            &tokens,
            "t0ken,jane,1,\"dev,ops\"\nadm1n,amy,2,system:masters\n",
        );
        secret(&passwords, "pa55,paul,3,system:masters\n");
        let at = |name: &str| place.join(name).display().to_string();
        let mut node = Node::new(place)
            .flag(&format!("--token-auth-file={}", tokens.display()))
            .flag(&format!("--basic-auth-file={}", passwords.display()))
            .flag(&format!("--client-ca-file={}", at("office.crt")));
        node.start();
        let pods = "/api/v1/namespaces/default/pods";
        let refused = |answer: (u16, String)| {
            assert_eq!(answer.0, 401, "{}", answer.1);
            let status: Value = serde_json::from_str(&answer.1).expect("JSON");
            assert_eq!(status["message"], "Unauthorized");
        };
        let forbidden = |answer: (u16, String), who: &str| {
            assert_eq!(answer.0, 403, "{}", answer.1);
            let status: Value = serde_json::from_str(&answer.1).expect("JSON");
            let text = format!(
                "pods is forbidden: User \"{who}\" cannot list resource \"pods\" in API group \"\" \
                 in the namespace \"default\""
            );
            assert_eq!(status["message"], text);
        };
        refused(curl(&node, &[], pods));
        refused(curl(&node, &[], "/version"));
        refused(bearer(&node, "wrong", pods));
        refused(curl(&node, &["--user", "paul:wrong"], pods));
        forbidden(bearer(&node, "t0ken", pods), "jane");
        assert_eq!(bearer(&node, "adm1n", pods).0, 200);
        assert_eq!(curl(&node, &["--user", "paul:pa55"], pods).0, 200);
        let certificate = |name: &str| [at(&format!("{name}.crt")), at(&format!("{name}.key"))];
        let shown = |name: &str| {
            let [certificate, key] = certificate(name);
            curl(&node, &["--cert", &certificate, "--key", &key], pods)
        };
        forbidden(shown("bob"), "bob");
        assert_eq!(shown("root").0, 200);
        // TLS 1.2 too; 1.1 is refused.
        let old = ["--tls-max", "1.2", "-H", "Authorization: Bearer adm1n"];
        assert_eq!(curl(&node, &old, pods).0, 200);

        secret(&tokens, "n3w,amy,2,system:masters\n");
        hang_up(&node, "SIGHUP: files of authentication are read");
        refused(bearer(&node, "adm1n", pods));
        assert_eq!(bearer(&node, "n3w", pods).0, 200);
        secret(&tokens, "n3w,amy,2,system:masters\nnonsense\n");
        hang_up(&node, "tokens.csv:2: ");
        assert_eq!(bearer(&node, "n3w", pods).0, 200);

        // With the bad file it does not start at all.
        node.terminate();
        let text = refused_start(&node, &[&format!("--token-auth-file={}", tokens.display())]);
        assert!(
            text.contains("--token-auth-file: ") && text.contains("tokens.csv:2: "),
            "{text}"
        );
        secret(&tokens, "");
        node.finish();
    });
}

/// What a start with these flags says; it must fail, with one line.
fn refused_start(node: &Node, flags: &[&str]) -> String {
    let output = Command::new(LOWTIDE)
        .args(["run", "--pod-manifest-path="])
        .arg(format!("--root-dir={}", node.root.display()))
        .arg(format!("--run-dir={}", node.run.display()))
        .args(flags)
        .output()
        .expect("lowtide");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    text
}

#[test]
fn silent_peers_keep_nobody_out() {
    isolated(|place| {
        if missing(&["curl"]) {
            return;
        }
        let node = Node::started(place);
        let connect = || TcpStream::connect("127.0.0.1:6443").expect("connect");
        let mut silent: Vec<TcpStream> = (0..300).map(|_| connect()).collect();
        assert_eq!(curl(&node, &[], "/version").0, 401);
        let mut oldest = silent.remove(0);
        let mut byte = [0];
        oldest
            .set_read_timeout(Some(Duration::from_secs(8)))
            .unwrap();
        assert_eq!(oldest.read(&mut byte).expect("closed, not late"), 0);
        // Who speaks plain HTTP is told nothing, and no harm is done.
        let mut plain = connect();
        plain.write_all(b"GET /version HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains("HTTP/1.1 2"));
        assert_eq!(curl(&node, &[], "/version").0, 401);
        eventually("the node is shown", || {
            node.ok(&["get", "nodes"]).contains("Ready")
        });
        drop(silent);
        node.finish();
    });
}

#[test]
fn a_pod_reaches_the_api_at_the_gateway() {
    isolated(|place| {
        let node = Node::started(place);
        node.manifest("a.yaml", &pod("p", FOREVER, "", ""));
        node.up("p");
        let said = node.sh(
            "p",
            "echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT",
        );
        assert_eq!(said, "10.88.0.1:6443\n");
        if missing(&["curl", "nsenter"]) {
            return node.finish();
        }
        let inside = pids_of("trap 'exit 0' TERM")[0].to_string();
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &inside, "curl", "-sS", "--cacert"]);
        command.arg(node.root.join("pki/ca.crt"));
        let output = command.arg("https://10.88.0.1:6443/version").output();
        let output = output.expect("nsenter");
        let answer = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(answer.contains("Unauthorized"), "{answer} {errors}");
        node.finish();
    });
}

#[test]
fn a_taken_port_is_fatal_only_if_it_was_asked_for() {
    isolated(|place| {
        let taken = std::net::TcpListener::bind("127.0.0.1:6443").expect("bind");
        let mut node = Node::started(place);
        let log = node.log();
        assert!(
            log.contains("127.0.0.1:6443") && log.contains("--secure-port"),
            "{log}"
        );
        eventually("the node is shown", || {
            node.ok(&["get", "nodes"]).contains("Ready")
        });
        node.terminate();
        let text = refused_start(&node, &["--secure-port=6443"]);
        assert!(
            text.contains("127.0.0.1:6443") && text.contains("--secure-port"),
            "{text}"
        );
        drop(taken);
        node.flags.push("--secure-port=0".to_owned());
        node.start();
        assert!(TcpStream::connect("127.0.0.1:6443").is_err());
        node.finish();
    });
}
