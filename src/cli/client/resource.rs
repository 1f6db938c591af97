//! What the user calls an object, and where the API has it.

use serde_json::Value;

use super::transport::{Client, Error};
use crate::apiserver::query::encode;
use crate::object::Kind;

/// A kind by any of its names: `pods`, `pod`, `po`. Errors: usage, with the names there are.
pub fn kind(name: &str) -> Result<Kind, Error> {
    let name_lower = name.to_ascii_lowercase();
    let known = Kind::ALL.into_iter().find(|kind| {
        let singular = kind.name().to_ascii_lowercase();
        let plain = [singular.as_str(), kind.plural()];
        plain.contains(&name_lower.as_str()) || kind.short_names().contains(&name_lower.as_str())
    });
    known.ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.into_iter().map(Kind::plural).collect();
        Error::Usage(format!(
            "the server has no resource type {name:?}; it has {}",
            known.join(", ")
        ))
    })
}

/// Path of a collection; `None` for all namespaces.
pub fn collection(kind: Kind, namespace: Option<&str>) -> String {
    let base = match kind.group() {
        "" => format!("/api/{}", kind.version()),
        group => format!("/apis/{group}/{}", kind.version()),
    };
    match namespace.filter(|_| kind.namespaced()) {
        Some(namespace) => format!("{base}/namespaces/{}/{}", encode(namespace), kind.plural()),
        None => format!("{base}/{}", kind.plural()),
    }
}

/// Path of one object.
pub fn object(kind: Kind, namespace: &str, name: &str) -> String {
    format!("{}/{}", collection(kind, Some(namespace)), encode(name))
}

/// The full name of a pod that the user may have called by its manifest's name: static pods carry
/// the node's name as a suffix. A pod that has exactly this name comes first.
pub async fn pod_name(client: &Client, namespace: &str, name: &str) -> Result<String, Error> {
    let exact = client
        .get(&object(Kind::Pod, namespace, name), "application/json")
        .await;
    match exact {
        Ok(_) => Ok(name.to_owned()),
        Err(error) if !error.is_not_found() => Err(error),
        Err(error) => {
            let list = client
                .get(&collection(Kind::Pod, Some(namespace)), "application/json")
                .await?;
            static_name(&list, name).ok_or(error)
        }
    }
}

/// The only static pod of the list whose name is `name` and its node's.
fn static_name(list: &Value, name: &str) -> Option<String> {
    let pods = list["items"].as_array().into_iter().flatten();
    let mut found = pods.filter_map(|pod| {
        let full = pod["metadata"]["name"].as_str()?;
        let source = pod["metadata"]["annotations"]["kubernetes.io/config.source"].as_str()?;
        let node = pod["spec"]["nodeName"].as_str()?;
        let short = full.strip_suffix(node)?.strip_suffix('-')?;
        (source != "api" && short == name).then(|| full.to_owned())
    });
    let only = found.next()?;
    found.next().is_none().then_some(only)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_static_pod_answers_to_its_manifests_name() {
        let pod = |name: &str, source: &str| {
            json!({
                "metadata": {"name": name, "annotations": {"kubernetes.io/config.source": source}},
                "spec": {"nodeName": "pi-4"},
            })
        };
        let list = json!({"items": [pod("web-pi-4", "file"), pod("db-pi-4", "api")]});
        assert_eq!(static_name(&list, "web").as_deref(), Some("web-pi-4"));
        assert_eq!(static_name(&list, "db"), None);
        assert_eq!(static_name(&list, "we"), None);
        let twice = json!({"items": [pod("web-pi-4", "file"), pod("web-pi-4", "http")]});
        assert_eq!(static_name(&twice, "web"), None);
    }
}
