//! What a manifest source adds to an object before the registry sees it. Pure.
//!
//! Source: Kubernetes pkg/kubelet/config/common.go (`applyDefaults`). The UID is opaque; only that
//! it stays the same for unchanged content is promised.

use serde_json::{Map, Value, json};

use crate::object::{Cause, Key, Kind, Source};
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
/// A cluster has it on its picture of the pod; here the pod itself is what `kubectl drain` passes over.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation: when this content was first seen, RFC 3339.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Completes an object of a manifest. Errors: the field and what is wrong with it.
pub fn apply(mut body: Value, origin: Origin<'_>) -> Result<Defaulted, Cause> {
    let kind = body["kind"]
        .as_str()
        .and_then(Kind::from_name)
        .ok_or_else(|| required("kind"))?;
    let hash = content_hash(&body, origin);
    let metadata = section(&mut body, "metadata")?;
    let name = text(metadata, "name")?
        .ok_or_else(|| required("metadata.name"))?
        .to_owned();
    let namespace = match kind.namespaced() {
        true => text(metadata, "namespace")?.unwrap_or("default").to_owned(),
        false => String::new(),
    };
    match kind.namespaced() {
        true => metadata.insert("namespace".to_owned(), namespace.clone().into()),
        false => metadata.remove("namespace"),
    };
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
) -> Result<String, Cause> {
    let node_name = origin.node_name.to_lowercase();
    let metadata = section(body, "metadata")?;
    let uid = match text(metadata, "uid")? {
        Some(pinned) => {
            Uid::new(pinned)
                .ok_or_else(|| invalid("metadata.uid", "must be usable as a file name"))?;
            pinned.to_owned()
        }
        None => hash,
    };
    let name = format!("{name}-{node_name}");
    metadata.insert("name".to_owned(), name.clone().into());
    metadata.insert("uid".to_owned(), uid.clone().into());
    let annotations = subsection(metadata, "annotations", "metadata.annotations")?;
    annotations.insert(CONFIG_HASH.to_owned(), uid.clone().into());
    annotations.insert(CONFIG_MIRROR.to_owned(), uid.into());
    annotations.insert(CONFIG_SOURCE.to_owned(), origin.source.annotation().into());
    let spec = section(body, "spec")?;
    // A node is always registered by its lower-case name.
    spec.insert("nodeName".to_owned(), node_name.into());
    if origin.source == Source::File {
        tolerate_no_execute(spec)?;
    }
    section(body, "status")?.insert("phase".to_owned(), "Pending".into());
    Ok(name)
}

/// Files are the node's own: no taint drives their pods away.
fn tolerate_no_execute(spec: &mut Map<String, Value>) -> Result<(), Cause> {
    let tolerations = spec.entry("tolerations").or_insert(Value::Null);
    if tolerations.is_null() {
        *tolerations = json!([]);
    }
    let Value::Array(list) = tolerations else {
        return Err(invalid("spec.tolerations", "must be a list"));
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

fn required(path: &str) -> Cause {
    (path.to_owned(), "Required value".to_owned())
}

fn invalid(path: &str, why: &str) -> Cause {
    (path.to_owned(), format!("Invalid value: {why}"))
}

fn section<'a>(body: &'a mut Value, name: &str) -> Result<&'a mut Map<String, Value>, Cause> {
    match body {
        Value::Object(fields) => subsection(fields, name, name),
        _ => Err(invalid("", "must be an object")),
    }
}

fn subsection<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
    path: &str,
) -> Result<&'a mut Map<String, Value>, Cause> {
    let value = fields.entry(name).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .ok_or_else(|| invalid(path, "must be an object"))
}

/// A text field of the metadata; an empty one counts as absent.
fn text<'a>(metadata: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Cause> {
    match metadata.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(other) => Err(invalid(
            &format!("metadata.{name}"),
            &format!("{other}: must be a string"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Defaulted, Origin, apply, set_seen};
    use crate::object::{Key, Kind, Source};

    fn origin(source: Source) -> Origin<'static> {
        Origin {
            source,
            location: "/m/web.yaml",
            node_name: "Pi-4",
        }
    }

    fn pod() -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
               "spec": {"containers": [{"name": "c", "image": "i"}]}})
    }

    fn file(body: Value) -> Defaulted {
        apply(body, origin(Source::File)).expect("usable")
    }

    #[test]
    fn a_pod_of_a_file_gets_what_upstream_gives_it() {
        let mut pod = file(pod());
        set_seen(&mut pod.body, "2024-01-02T03:04:05Z");
        assert_eq!(pod.key, Key::local(Kind::Pod, "default", "web-pi-4"));
        let metadata = &pod.body["metadata"];
        let uid = metadata["uid"].as_str().expect("a uid");
        assert!(uid.len() == 32 && uid.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(metadata["name"], "web-pi-4");
        assert_eq!(metadata["namespace"], "default");
        let annotations = &metadata["annotations"];
        assert_eq!(annotations["kubernetes.io/config.hash"], uid);
        assert_eq!(annotations["kubernetes.io/config.mirror"], uid);
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(
            annotations["kubernetes.io/config.seen"],
            "2024-01-02T03:04:05Z"
        );
        assert_eq!(pod.body["spec"]["nodeName"], "pi-4");
        let toleration = json!([{"operator": "Exists", "effect": "NoExecute"}]);
        assert_eq!(pod.body["spec"]["tolerations"], toleration);
        assert_eq!(pod.body["status"]["phase"], "Pending");
    }

    #[test]
    fn a_pod_of_a_url_gets_no_toleration() {
        let pod = apply(pod(), origin(Source::Http)).expect("usable");
        assert_eq!(pod.body["spec"]["tolerations"], Value::Null);
        assert_eq!(
            pod.body["metadata"]["annotations"]["kubernetes.io/config.source"],
            "http"
        );
    }

    #[test]
    fn the_uid_follows_content_and_place_and_nothing_else() {
        let uid = |body: Value, origin| {
            let body = apply(body, origin).expect("usable").body;
            body["metadata"]["uid"].as_str().expect("a uid").to_owned()
        };
        let own = uid(pod(), origin(Source::File));
        assert_eq!(own, uid(pod(), origin(Source::File)));
        let mut labelled = pod();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        assert_ne!(own, uid(labelled, origin(Source::File)));
        assert_ne!(own, uid(pod(), origin(Source::Http)));
        let elsewhere = Origin {
            location: "/m/other.yaml",
            ..origin(Source::File)
        };
        assert_ne!(own, uid(pod(), elsewhere));
        let mut pinned = pod();
        pinned["metadata"]["uid"] = json!("mine");
        assert_eq!(uid(pinned, origin(Source::File)), "mine");
    }

    #[test]
    fn config_maps_and_secrets_keep_their_names() {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                         "metadata": {"name": "conf", "namespace": "apps"}});
        let map = file(map);
        assert_eq!(map.key, Key::local(Kind::ConfigMap, "apps", "conf"));
        let space = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "plant", "namespace": "apps"}});
        let space = file(space);
        assert_eq!(space.key, Key::local(Kind::Namespace, "", "plant"));
        assert_eq!(space.body["metadata"].get("namespace"), None);
        assert_eq!(map.body["metadata"]["annotations"], Value::Null);
    }

    #[test]
    fn a_field_of_the_wrong_type_is_named() {
        for (field, value, message) in [
            ("/metadata", json!({}), "metadata.name: Required value"),
            ("/metadata", json!([]), "metadata: Invalid value"),
            (
                "/metadata/name",
                json!(7),
                "metadata.name: Invalid value: 7",
            ),
            ("/metadata/name", json!(""), "metadata.name: Required value"),
            (
                "/metadata",
                json!({"name": "a", "uid": "../b"}),
                "metadata.uid: Invalid value",
            ),
            (
                "/metadata",
                json!({"name": "a", "annotations": 1}),
                "metadata.annotations: Invalid",
            ),
            ("/spec", json!("x"), "spec: Invalid value"),
            (
                "/spec",
                json!({"tolerations": {}}),
                "spec.tolerations: Invalid value",
            ),
        ] {
            let mut body = pod();
            *body.pointer_mut(field).expect("exists") = value;
            let (path, why) = apply(body, origin(Source::File)).expect_err(message);
            let error = format!("{path}: {why}");
            assert!(error.starts_with(message), "{error}");
        }
    }
}
