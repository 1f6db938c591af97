//! Credentials that a program prints (`users[].user.exec` of a kubeconfig).
//!
//! The program is told of the cluster in an environment variable and asked nothing else: there is
//! no terminal. Source: KEP-541 and Kubernetes, "Authenticating", client-go credential plugins.

use std::io;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kubeconfig::Exec;
use crate::os::output::{Output, output};
use crate::os::process::Ended;
use crate::os::spawn::Spawn;
use crate::world::NoAnswer;

/// Credential programs of clouds ask a server of theirs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(30);
/// A token and a chain of certificates are a tenth of it.
const OUTPUT_BYTES_MAX: u64 = 256 << 10;
/// What a service manager tells this process alone.
const OWN_VARIABLES: [&str; 3] = ["NOTIFY_", "WATCHDOG_", "LISTEN_"];

/// What the program printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Issued {
    pub token: Option<String>,
    /// Certificate chain and key, PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// `None`: until the cluster refuses it.
    pub expires: Option<Timestamp>,
}

/// Runs the program. Blocks; for a thread that may wait.
/// Errors: `Unreachable` if it failed, for it may depend on the same link; `Unusable` if it is not
/// there or its words cannot be understood.
pub(super) fn run(exec: &Exec) -> Result<Issued, NoAnswer> {
    let name = exec.command.display();
    let spec = json!({ "interactive": false, "cluster": exec.cluster });
    let mut info = json!({
        "kind": "ExecCredential",
        "apiVersion": exec.api_version,
        "spec": spec,
    });
    if exec.cluster.is_none() {
        info["spec"] = json!({ "interactive": false });
    }
    let mut spawn = Spawn::new(&exec.command).args(&exec.arguments);
    let named = |name: &str| exec.environment.iter().any(|(given, _)| given == name);
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let own = OWN_VARIABLES.iter().any(|own| text.starts_with(own));
        if !own && !named(&text) {
            spawn = spawn.env(&name, value);
        }
    }
    for (name, value) in &exec.environment {
        spawn = spawn.env(name, value);
    }
    spawn = spawn.env("KUBERNETES_EXEC_INFO", info.to_string());
    let ran =
        output(spawn, OUTPUT_BYTES_MAX, PROGRAM_TIMEOUT).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let hint = one_line(exec.install_hint.as_bytes());
                NoAnswer::Unusable(
                    format!("run {name}: no such program {hint}")
                        .trim_end()
                        .into(),
                )
            }
            _ => NoAnswer::Unreachable(format!("run {name}: {error}")),
        })?;
    if ran.ended != Ended::Exited(0) {
        return Err(NoAnswer::Unreachable(failed(exec, &ran)));
    }
    issued(&exec.api_version, &ran.stdout)
        .map_err(|why| NoAnswer::Unusable(format!("what {name} prints: {why}")))
}

fn failed(exec: &Exec, ran: &Output) -> String {
    let (name, code) = (exec.command.display(), ran.ended.code());
    format!("run {name}: exit code {code}: {}", one_line(&ran.stderr))
}

/// The last line that says something, of what a program complained.
fn one_line(said: &[u8]) -> String {
    const CHARS_MAX: usize = 300;
    let text = String::from_utf8_lossy(said);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    let line = line.unwrap_or_default().trim();
    line.chars().take(CHARS_MAX).collect()
}

/// Reads an ExecCredential. Errors never repeat the text, which holds secrets.
fn issued(api_version: &str, text: &[u8]) -> Result<Issued, String> {
    let value: Value = serde_json::from_slice(text).map_err(|_| "no JSON".to_owned())?;
    if value["kind"] != "ExecCredential" || value["apiVersion"] != api_version {
        return Err(format!("no ExecCredential of {api_version}"));
    }
    let status = &value["status"];
    let field = |name: &str| status[name].as_str().filter(|text| !text.is_empty());
    let bytes = |text: &str| text.as_bytes().to_vec();
    let certificate = match (field("clientCertificateData"), field("clientKeyData")) {
        (Some(chain), Some(key)) => Some((bytes(chain), bytes(key))),
        (None, None) => None,
        _ => return Err("clientCertificateData and clientKeyData need each other".to_owned()),
    };
    let expires = match field("expirationTimestamp").map(str::parse) {
        None => None,
        Some(Ok(at)) => Some(at),
        Some(Err(_)) => return Err("status.expirationTimestamp is no time".to_owned()),
    };
    let issued = Issued {
        token: field("token").map(str::to_owned),
        certificate,
        expires,
    };
    match issued.token.is_none() && issued.certificate.is_none() {
        true => Err("status holds neither token nor certificate".to_owned()),
        false => Ok(issued),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "client.authentication.k8s.io/v1";

    fn program(script: &str, cluster: Option<Value>) -> Exec {
        Exec {
            api_version: V1.into(),
            command: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            environment: vec![("WHO".into(), "pi".into())],
            cluster,
            install_hint: "get it\n".into(),
        }
    }

    #[test]
    fn a_program_is_told_of_the_cluster_and_its_words_are_taken() {
        let script = r#"
            case "$KUBERNETES_EXEC_INFO" in *'"server":"https://c"'*) ;; *) exit 9 ;; esac
            echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1",
                "status":{"token":"'$WHO'","expirationTimestamp":"2030-01-01T00:00:00Z"}}'"#;
        let exec = program(script, Some(json!({"server": "https://c"})));
        let issued = run(&exec).expect("issued");
        assert_eq!(issued.token.as_deref(), Some("pi"));
        assert_eq!(
            issued.expires,
            Some("2030-01-01T00:00:00Z".parse().unwrap())
        );
        let Err(NoAnswer::Unreachable(why)) = run(&program(script, None)) else {
            panic!("the script must have missed the cluster");
        };
        assert_eq!(why, "run sh: exit code 9: ");
    }

    #[test]
    fn a_program_that_is_not_there_comes_with_its_hint() {
        let missing = Exec {
            command: "/no/such/program".into(),
            ..program("", None)
        };
        let expected = "run /no/such/program: no such program get it".to_owned();
        assert!(run(&missing) == Err(NoAnswer::Unusable(expected)));
    }

    #[test]
    fn words_that_are_no_credential_are_refused_without_repeating_them() {
        let status = |status: Value| {
            let object = json!({"kind": "ExecCredential", "apiVersion": V1, "status": status});
            object.to_string()
        };
        for (text, why) in [
            ("geheim".to_owned(), "no JSON"),
            (r#"{"kind":"Pod"}"#.to_owned(), "no ExecCredential of"),
            (status(json!({})), "neither token nor certificate"),
            (
                status(json!({"token": ""})),
                "neither token nor certificate",
            ),
            (
                status(json!({"clientKeyData": "geheim"})),
                "need each other",
            ),
            (
                status(json!({"token": "geheim", "expirationTimestamp": "soon"})),
                "is no time",
            ),
        ] {
            let error = issued(V1, text.as_bytes()).err().expect(&text);
            assert!(error.contains(why) && !error.contains("geheim"), "{error}");
        }
        let both = status(json!({"clientCertificateData": "c", "clientKeyData": "k"}));
        let certificate = issued(V1, both.as_bytes()).expect("issued").certificate;
        assert_eq!(certificate, Some((b"c".to_vec(), b"k".to_vec())));
    }
}
