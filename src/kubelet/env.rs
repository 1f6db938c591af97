//! The environment of a container: `envFrom`, `env`, references, services.
//!
//! ```text
//!  envFrom in order ─► env in order (overrides) ─► service variables that are not defined yet
//!  $(VAR) in a value sees: envFrom, earlier env, services
//! ```
//!
//! Never reads a status and never waits: an object that is missing now is an error now, and the
//! next sync tries again. Source: k8s.io/kubernetes pkg/kubelet/kubelet_pods.go.

use std::collections::BTreeMap;
use std::net::IpAddr;

use base64::Engine;
use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVarSource, Pod, ResourceFieldSelector,
};

use serde_json::{Value, json};

use super::expand::expand;
use super::facts::{Allocatable, NodeFacts, References, text_entries};
use crate::object::references::items;
use crate::object::{Object, Quantity};

/// What the environment depends on besides the pod.
#[derive(Clone, Copy)]
pub struct EnvContext<'a> {
    pub node: &'a NodeFacts,
    pub references: &'a dyn References,
    /// Of the sandbox; of the host for hostNetwork. Empty while there is none.
    pub pod_ips: &'a [IpAddr],
    /// `KUBERNETES_SERVICE_HOST` …; lowest precedence.
    pub services: &'a [(String, String)],
}

/// Variables in the order in which they were first defined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    pub variables: Vec<(String, String)>,
}

impl Environment {
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.variables.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    fn set(&mut self, name: &str, value: String) {
        match self.variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }
}

/// Where the API is, as the service `kubernetes` says it.
pub fn api_variables(host: &str, port: u16) -> Vec<(String, String)> {
    let ports = json!([{"name": "https", "port": port}]);
    service_variables("kubernetes", &json!({"clusterIP": host, "ports": ports}))
}

/// Where a service is, by its spec; nothing for one without an address. Source: Kubernetes
/// pkg/kubelet/envvars.
pub fn service_variables(service: &str, spec: &Value) -> Vec<(String, String)> {
    let shout = |name: &str| name.replace('-', "_").to_uppercase();
    let service = shout(service);
    let host = spec["clusterIP"].as_str().unwrap_or_default();
    if matches!(host, "" | "None") {
        return Vec::new();
    }
    let bracketed = match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    };
    let mut variables = vec![(format!("{service}_SERVICE_HOST"), host.to_owned())];
    for (n, port) in items(spec, "ports").enumerate() {
        let number = port["port"].to_string();
        if n == 0 {
            variables.push((format!("{service}_SERVICE_PORT"), number.clone()));
        }
        if let Some(name) = port["name"].as_str().filter(|name| !name.is_empty()) {
            let name = format!("{service}_SERVICE_PORT_{}", shout(name));
            variables.push((name, number));
        }
    }
    for (n, port) in items(spec, "ports").enumerate() {
        let number = port["port"].to_string();
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let lower = protocol.to_lowercase();
        let url = format!("{lower}://{bracketed}:{number}");
        if n == 0 {
            variables.push((format!("{service}_PORT"), url.clone()));
        }
        let one = format!("{service}_PORT_{number}_{protocol}");
        variables.extend([
            (one.clone(), url),
            (format!("{one}_PROTO"), lower),
            (format!("{one}_PORT"), number),
            (format!("{one}_ADDR"), host.to_owned()),
        ]);
    }
    variables
}

/// Resolves a container's whole environment.
/// Errors: upstream's text for `CreateContainerConfigError`.
pub fn environment(
    pod: &Pod,
    container: &Container,
    context: &EnvContext,
) -> Result<Environment, String> {
    let mut environment = Environment::default();
    for source in container.env_from.iter().flatten() {
        add_all(&mut environment, pod, source, context)?;
    }
    let service = |name: &str| {
        let found = context.services.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    };
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => match value_of(pod, container, source, context)? {
                Some(value) => value,
                None => continue,
            },
            None => {
                let written = variable.value.as_deref().unwrap_or_default();
                expand(written, |name| {
                    environment
                        .get(name)
                        .map(str::to_owned)
                        .or_else(|| service(name))
                })
            }
        };
        environment.set(&variable.name, value);
    }
    for (name, value) in context.services {
        if environment.get(name).is_none() {
            environment.set(name, value.clone());
        }
    }
    Ok(environment)
}

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

fn add_all(
    environment: &mut Environment,
    pod: &Pod,
    source: &EnvFromSource,
    context: &EnvContext,
) -> Result<(), String> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    if let Some(reference) = &source.config_map_ref {
        match context
            .references
            .config_map(namespace(pod), &reference.name)
        {
            Some(object) => {
                for (key, value) in text_entries(&object, "data") {
                    environment.set(&format!("{prefix}{key}"), value.to_owned());
                }
            }
            None if reference.optional == Some(true) => {}
            None => return Err(format!("configmap {:?} not found", reference.name)),
        }
    }
    if let Some(reference) = &source.secret_ref {
        match context.references.secret(namespace(pod), &reference.name) {
            Some(object) => {
                for (key, _) in text_entries(&object, "data") {
                    let value = secret_text(&object, key).unwrap_or_default();
                    environment.set(&format!("{prefix}{key}"), value);
                }
            }
            None if reference.optional == Some(true) => {}
            None => return Err(format!("secret {:?} not found", reference.name)),
        }
    }
    Ok(())
}

/// Decoded bytes of one secret entry; `None` if there is no such key or it is not base64.
pub(super) fn secret_bytes(object: &Object, key: &str) -> Option<Vec<u8>> {
    let encoded = object.body.get("data")?.get(key)?.as_str()?;
    base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .ok()
}

/// A variable cannot hold arbitrary bytes in JSON; bytes that are no UTF-8 are replaced.
fn secret_text(object: &Object, key: &str) -> Option<String> {
    secret_bytes(object, key).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The value that a reference leads to; `None` if it is optional and not there.
fn value_of(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    context: &EnvContext,
) -> Result<Option<String>, String> {
    if let Some(field) = &source.field_ref {
        return field_value(pod, &field.field_path, context).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        return resource_value(pod, container, selector, &context.node.allocatable).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let found = context
            .references
            .config_map(namespace(pod), &selector.name);
        let entry = |object: &Object| {
            object
                .body
                .get("data")?
                .get(&selector.key)?
                .as_str()
                .map(str::to_owned)
        };
        let found = found.as_deref().map(entry);
        return keyed(
            pod,
            "ConfigMap",
            &selector.name,
            &selector.key,
            selector.optional,
            found,
        );
    }
    if let Some(selector) = &source.secret_key_ref {
        let found = context.references.secret(namespace(pod), &selector.name);
        let found = found
            .as_deref()
            .map(|object| secret_text(object, &selector.key));
        return keyed(
            pod,
            "Secret",
            &selector.name,
            &selector.key,
            selector.optional,
            found,
        );
    }
    Err("valueFrom names no source that this node knows".to_owned())
}

/// `found`: object missing, key missing, or the value.
fn keyed(
    pod: &Pod,
    kind: &str,
    name: &str,
    key: &str,
    optional: Option<bool>,
    found: Option<Option<String>>,
) -> Result<Option<String>, String> {
    match (found, optional == Some(true)) {
        (Some(Some(value)), _) => Ok(Some(value)),
        (Some(None) | None, true) => Ok(None),
        (Some(None), false) => Err(format!(
            "couldn't find key {key} in {kind} {}/{name}",
            namespace(pod)
        )),
        (None, false) => Err(format!("{} {name:?} not found", kind.to_ascii_lowercase())),
    }
}

fn field_value(pod: &Pod, path: &str, context: &EnvContext) -> Result<String, String> {
    let spec = pod.spec.as_ref();
    let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
    let all = |ips: &[IpAddr]| {
        let texts: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        texts.join(",")
    };
    Ok(match path {
        "spec.nodeName" => context.node.node_name.clone(),
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" => first(&context.node.host_ips),
        "status.hostIPs" => all(&context.node.host_ips),
        "status.podIP" => first(context.pod_ips),
        "status.podIPs" => all(context.pod_ips),
        "metadata.labels" | "metadata.annotations" => {
            return Err(format!("unsupported fieldPath: {path}"));
        }
        _ => return metadata_field(pod, path),
    })
}

/// Metadata fields, as `fieldRef` of variables and of downwardAPI volumes name them.
/// Whole maps are one `key="quoted value"` a line, sorted.
pub(super) fn metadata_field(pod: &Pod, path: &str) -> Result<String, String> {
    let metadata = &pod.metadata;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let entries = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(entries
            .as_ref()
            .and_then(|m| m.get(key))
            .cloned()
            .unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "metadata.labels" => format_map(metadata.labels.as_ref()),
        "metadata.annotations" => format_map(metadata.annotations.as_ref()),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['app']` as (`metadata.labels`, `app`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}=\"{}\"", quoted(value)))
        .collect();
    lines.join("\n")
}

/// As Go's `%q` writes it between the quotes.
fn quoted(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        let code = u32::from(c);
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            '\x07' => text.push_str("\\a"),
            '\x08' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\x0b' => text.push_str("\\v"),
            '\x0c' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            _ if is_printable(c) => text.push(c),
            '\0'..='\x7f' => text.push_str(&format!("\\x{code:02x}")),
            ..='\u{ffff}' => text.push_str(&format!("\\u{code:04x}")),
            _ => text.push_str(&format!("\\U{code:08x}")),
        }
    }
    text
}

/// A mark alone is escaped, and one behind a letter is not.
fn is_printable(c: char) -> bool {
    let text: String = ['a', c].into_iter().collect();
    text.escape_debug().count() == 2
}

/// `{limits,requests}.{cpu,memory,ephemeral-storage,hugepages-*}` in units of the divisor,
/// rounded up. A missing limit is what the node can give; a missing request is 0.
pub(super) fn resource_value(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    allocatable: &Allocatable,
) -> Result<String, String> {
    let container = match selector.container_name.as_deref() {
        None | Some("") => container,
        Some(name) => {
            find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?
        }
    };
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known = matches!(resource, "cpu" | "memory" | "ephemeral-storage")
        || resource.starts_with("hugepages-");
    let resources = container.resources.as_ref();
    let stated = match list {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    if !known {
        return Err(unsupported());
    }
    let stated = stated
        .and_then(|m| m.get(resource))
        .and_then(|q| q.0.parse::<Quantity>().ok());
    let amount = match (stated, list, resource) {
        (Some(amount), _, _) => amount,
        (None, "limits", "cpu") => allocatable.cpu,
        (None, "limits", "memory") => allocatable.memory,
        (None, "limits", "ephemeral-storage") => allocatable.ephemeral_storage,
        (None, _, _) => Quantity::ZERO,
    };
    let divisor = selector
        .divisor
        .as_ref()
        .and_then(|q| q.0.parse::<Quantity>().ok());
    let divisor = divisor
        .filter(|d| *d > Quantity::ZERO)
        .unwrap_or(Quantity::from_units(1));
    let (amount, divisor) = match resource {
        "cpu" => (amount.millis(), divisor.millis()),
        _ => (amount.value(), divisor.value()),
    };
    let (amount, divisor) = (i128::from(amount), i128::from(divisor));
    let rounded_up = amount.div_euclid(divisor) + i128::from(amount.rem_euclid(divisor) != 0);
    Ok(rounded_up.to_string())
}

pub(super) fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    let all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    all.into_iter().find(|container| container.name == name)
}
