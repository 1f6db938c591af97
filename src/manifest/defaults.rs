//! What a manifest source adds to an object before the registry sees it. Pure.
//!
//! Source: Kubernetes pkg/kubelet/config/common.go (`applyDefaults`). The UID is opaque; only that
//! it stays the same for unchanged content is promised.

use serde_json::{Map, Value, json};

use crate::object::{Key, Kind, Source};
use crate::world::Uid;

/// Where an object came from, as its UID and its annotations tell.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub source: Source,
    /// Path of the file, or the URL.
    pub location: &'a str,
    pub node_name: &'a str,
}

/// An object that a registry can take; `config.seen` is still missing from pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaulted {
    pub key: Key,
    pub body: Value,
}

/// Annotation: the UID again, for who reads mirror pods.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: when this content was first seen, RFC 3339.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Completes a Pod, ConfigMap or Secret. Errors name the field.
pub fn apply(mut body: Value, origin: Origin<'_>) -> Result<Defaulted, String> {
    let kind = body["kind"]
        .as_str()
        .and_then(Kind::from_name)
        .ok_or("kind: Required value")?;
    let hash = content_hash(&body, origin);
    let metadata = section(&mut body, "metadata")?;
    let name = text(metadata, "name")?
        .ok_or("metadata.name: Required value")?
        .to_owned();
    let namespace = text(metadata, "namespace")?.unwrap_or("default").to_owned();
    metadata.insert("namespace".to_owned(), namespace.clone().into());
    let name = match kind {
        Kind::Pod => complete_pod(&mut body, &name, hash, origin)?,
        _ => name,
    };
    Ok(Defaulted {
        key: Key::local(kind, &namespace, &name),
        body,
    })
}

/// Stamps the time at which a pod's content was first seen.
pub fn set_seen(body: &mut Value, seen: &str) {
    body["metadata"]["annotations"][CONFIG_SEEN] = seen.into();
}

fn complete_pod(
    body: &mut Value,
    name: &str,
    hash: String,
    origin: Origin<'_>,
) -> Result<String, String> {
    let node_name = origin.node_name.to_lowercase();
    let metadata = section(body, "metadata")?;
    let uid = match text(metadata, "uid")? {
        Some(pinned) => {
            Uid::new(pinned).ok_or("metadata.uid: Invalid value: must be usable as a file name")?;
            pinned.to_owned()
        }
        None => hash,
    };
    let name = format!("{name}-{node_name}");
    metadata.insert("name".to_owned(), name.clone().into());
    metadata.insert("uid".to_owned(), uid.clone().into());
    let annotations = subsection(metadata, "annotations", "metadata.annotations")?;
    annotations.insert(CONFIG_HASH.to_owned(), uid.into());
    annotations.insert(CONFIG_SOURCE.to_owned(), origin.source.annotation().into());
    let spec = section(body, "spec")?;
    spec.insert("nodeName".to_owned(), origin.node_name.into());
    if origin.source == Source::File {
        tolerate_no_execute(spec)?;
    }
    section(body, "status")?.insert("phase".to_owned(), "Pending".into());
    Ok(name)
}

/// Files are the node's own: no taint drives their pods away.
fn tolerate_no_execute(spec: &mut Map<String, Value>) -> Result<(), String> {
    let tolerations = spec.entry("tolerations").or_insert(Value::Null);
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Value::Array(list) = tolerations else {
        return Err("spec.tolerations: Invalid value: must be a list".to_owned());
    };
    let all = json!({"operator": "Exists", "effect": "NoExecute"});
    if !list.contains(&all) {
        list.push(all);
    }
    Ok(())
}

/// 128 bits of SHA-256 over the document (keys sorted) and where it lies, as 32 hex digits.
fn content_hash(body: &Value, origin: Origin<'_>) -> String {
    let place = match origin.source {
        Source::Http => format!("url:{}", origin.location),
        _ => format!("host:{}file:{}", origin.node_name, origin.location),
    };
    let text = format!("{body}{place}");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn section<'a>(body: &'a mut Value, name: &str) -> Result<&'a mut Map<String, Value>, String> {
    match body {
        Value::Object(fields) => subsection(fields, name, name),
        _ => Err("not an object".to_owned()),
    }
}

fn subsection<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
    path: &str,
) -> Result<&'a mut Map<String, Value>, String> {
    let value = fields.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .ok_or_else(|| format!("{path}: Invalid value: must be an object"))
}

/// A text field of the metadata; an empty one counts as absent.
fn text<'a>(metadata: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match metadata.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(other) => Err(format!(
            "metadata.{name}: Invalid value: {other}: must be a string"
        )),
    }
}
