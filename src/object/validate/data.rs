//! ConfigMap and Secret: keys that become file names, sizes, and what secret types promise.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::report::{At, Report};
use crate::object::names::data_key_problem;

/// All values together. Upstream: `MaxSecretSize`.
const DATA_BYTES_MAX: usize = 1 << 20;

pub(super) fn validate_config_map(top: &At<'_>, report: &mut Report) {
    let mut bytes = 0;
    for (key, at) in top.entries("data") {
        check_key(key, &at, report);
        if top.get("binaryData").get(key).is_set() {
            report.causes.push((
                at.path.clone(),
                format!("Invalid value: {key:?}: duplicate of key present in binaryData"),
            ));
        }
        bytes += at.text().len();
    }
    for (key, at) in top.entries("binaryData") {
        check_key(key, &at, report);
        bytes += decoded_bytes(at.text());
    }
    if bytes > DATA_BYTES_MAX {
        report.too_long(&At::top(top.value), DATA_BYTES_MAX);
    }
}

pub(super) fn validate_secret(top: &At<'_>, report: &mut Report) {
    let mut bytes = 0;
    for (key, at) in top.entries("data") {
        check_key(key, &at, report);
        if BASE64.decode(at.text()).is_err() {
            report.causes.push((
                at.path.clone(),
                "Invalid value: \"<secret>\": must be base64".to_owned(),
            ));
        }
        bytes += decoded_bytes(at.text());
    }
    if bytes > DATA_BYTES_MAX {
        report.too_long(&top.get("data"), DATA_BYTES_MAX);
    }
    check_type(top, report);
}

/// What a type promises to those who use it.
fn check_type(top: &At<'_>, report: &mut Report) {
    let data = top.get("data");
    let value = |key: &str| BASE64.decode(data.get(key).text()).ok();
    let named = |key: &str| At {
        value: data.value.get(key).unwrap_or(&Value::Null),
        path: format!("{}[{key}]", data.path),
    };
    match top.get("type").text() {
        "kubernetes.io/service-account-token" => {
            const ACCOUNT: &str = "kubernetes.io/service-account.name";
            let annotations = top.get("metadata").get("annotations");
            if annotations.get(ACCOUNT).text().is_empty() {
                let path = format!("{}[{ACCOUNT}]", annotations.path);
                let value = &Value::Null;
                report.required(&At { value, path });
            }
        }
        "kubernetes.io/dockercfg" => docker_json(".dockercfg", &value, &named, report),
        "kubernetes.io/dockerconfigjson" => {
            docker_json(".dockerconfigjson", &value, &named, report);
        }
        "kubernetes.io/basic-auth" if data.set_of(&["username", "password"]).is_empty() => {
            report.required(&named("username"));
            report.required(&named("password"));
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").unwrap_or_default().is_empty() => {
            report.required(&named("ssh-privatekey"));
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if !data.get(key).is_set() {
                    report.required(&named(key));
                }
            }
        }
        _ => {}
    }
}

fn docker_json<'a>(
    key: &str,
    value: &dyn Fn(&str) -> Option<Vec<u8>>,
    named: &dyn Fn(&str) -> At<'a>,
    report: &mut Report,
) {
    match value(key) {
        _ if !named(key).is_set() => report.required(&named(key)),
        // Never the value itself: it is a secret.
        Some(text) if serde_json::from_slice::<serde_json::Map<String, Value>>(&text).is_ok() => {}
        _ => report.causes.push((
            named(key).path,
            "Invalid value: \"<secret contents redacted>\": must be a JSON object".to_owned(),
        )),
    }
}

fn check_key(key: &str, at: &At<'_>, report: &mut Report) {
    if let Some(problem) = data_key_problem(key) {
        let text = format!("Invalid value: {key:?}: {problem}");
        report.causes.push((at.path.clone(), text));
    }
}

fn decoded_bytes(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|b| *b == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(padding)
}
