//! What the server is and has: version, API groups and resources, in both forms that clients ask
//! for: one document for each group version, or all in one (`apidiscovery.k8s.io`).
//!
//! Source: Kubernetes apiserver, endpoints/discovery and endpoints/discovery/aggregated.

pub mod served;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Response as HttpResponse, StatusCode};
use serde_json::{Value, json};

use self::served::{GroupVersion, Part, Resource, SERVED};
use super::etag;
use super::status::{Refusal, json_response};
use crate::net::serve::Response;

/// The Kubernetes release whose API this is; clients compare `minor` with their own.
pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";

/// The media type of all in one, as asked for and as answered.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A document that says what is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// `/`: where to begin.
    Paths,
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/VERSION`, `/apis/GROUP/VERSION`
    Resources { group: String, version: String },
}

/// Errors: 404 for a group or version that is not here.
pub fn answer(document: &Document, headers: &HeaderMap) -> Result<Response, Refusal> {
    let all_in_one = accepts_aggregated(headers);
    let core = |served: &&GroupVersion| served.group.is_empty();
    let found = match document {
        Document::Paths => Some(paths()),
        Document::CoreVersions if all_in_one => return Ok(aggregated(core, headers)),
        Document::Groups if all_in_one => return Ok(aggregated(|served| !core(served), headers)),
        Document::CoreVersions => Some(core_versions()),
        Document::Groups => Some(groups()),
        Document::Group(name) => group(name),
        Document::Resources { group, version } => {
            let mut all = SERVED.iter();
            let named = |served: &&GroupVersion| served.group == group && served.version == version;
            all.find(named).map(resources)
        }
    };
    let value = found.ok_or_else(Refusal::no_such_path)?;
    Ok(json_response(StatusCode::OK, &value))
}

/// `v1.36.0+lowtide-0.1.0`
pub fn git_version() -> String {
    format!("v{MAJOR}.{MINOR}.0+lowtide-{}", env!("CARGO_PKG_VERSION"))
}

pub fn version() -> Response {
    let version = json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": git_version(),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    });
    json_response(StatusCode::OK, &version)
}

/// This machine as Go names it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn paths() -> Value {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for served in SERVED {
        match served.group {
            "" => paths.push(format!("/api/{}", served.version)),
            group => {
                paths.push(format!("/apis/{group}"));
                paths.push(format!("/apis/{group}/{}", served.version));
            }
        }
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(str::to_owned),
    );
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}

fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// The versions of every group but core, groups in the table's order.
fn named_groups() -> Vec<(&'static str, Vec<&'static GroupVersion>)> {
    let mut groups: Vec<(&str, Vec<&GroupVersion>)> = Vec::new();
    for served in SERVED.iter().filter(|served| !served.group.is_empty()) {
        match groups.iter_mut().find(|(name, _)| *name == served.group) {
            Some((_, versions)) => versions.push(served),
            None => groups.push((served.group, vec![served])),
        }
    }
    groups
}

fn groups() -> Value {
    let groups = named_groups();
    let groups = groups
        .iter()
        .map(|(name, versions)| group_of(name, versions));
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Value>()})
}

fn group(name: &str) -> Option<Value> {
    let groups = named_groups();
    let (name, versions) = groups.iter().find(|(group, _)| *group == name)?;
    let mut group = group_of(name, versions);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

fn group_of(name: &str, versions: &[&GroupVersion]) -> Value {
    let versions = versions.iter();
    let versions = versions.map(|v| json!({"groupVersion": v.name(), "version": v.version}));
    let versions: Vec<Value> = versions.collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn resources(served: &GroupVersion) -> Value {
    let mut list = Vec::new();
    for resource in served.resources {
        let mut whole = json!({
            "name": resource.plural,
            "singularName": resource.singular(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": resource.verbs,
        });
        names(&mut whole, resource);
        list.push(whole);
        for part in resource.parts {
            let mut json = json!({
                "name": format!("{}/{}", resource.plural, part.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": part.kind,
                "verbs": part.verbs,
            });
            if let Some((group, version)) = part.of {
                json["group"] = json!(group);
                json["version"] = json!(version);
            }
            list.push(json);
        }
    }
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": served.name(),
        "resources": list,
    })
}

fn names(json: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        json["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        json["categories"] = json!(resource.categories);
    }
}

/// Whether all in one comes before the plain form in what a client accepts.
fn accepts_aggregated(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let mut forms = accepted.flat_map(|value| value.split(','));
    forms.any(|form| {
        let mut parts = form.split(';').map(str::trim);
        let json = parts.next() == Some("application/json");
        let parameters: Vec<&str> = parts.collect();
        let wanted = ["g=apidiscovery.k8s.io", "v=v2", "as=APIGroupDiscoveryList"];
        json && wanted.iter().all(|wanted| parameters.contains(wanted))
    })
}

fn aggregated(wanted: impl Fn(&&GroupVersion) -> bool, headers: &HeaderMap) -> Response {
    let mut items: Vec<Value> = Vec::new();
    for served in SERVED.iter().filter(wanted) {
        let resources = served.resources.iter();
        let resources: Value = resources.map(|r| aggregated_resource(served, r)).collect();
        let version = json!({
            "version": served.version,
            "resources": resources,
            "freshness": "Current",
        });
        let last = items
            .last_mut()
            .filter(|item| item["metadata"]["name"] == served.group);
        match last.and_then(|item| item["versions"].as_array_mut()) {
            Some(versions) => versions.push(version),
            None => items.push(json!({
                "metadata": {"name": served.group, "creationTimestamp": null},
                "versions": [version],
            })),
        }
    }
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    tagged(&list, headers)
}

/// With an ETag, by which a client finds out that nothing has changed.
fn tagged(list: &Value, headers: &HeaderMap) -> Response {
    let mut response = json_response(StatusCode::OK, list);
    let tag = etag::of(list.to_string().as_bytes());
    if etag::is_known(headers, &tag) {
        response = HttpResponse::new(crate::net::serve::Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let answered = response.headers_mut();
    answered.insert(header::CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    answered.insert(header::VARY, HeaderValue::from_static("Accept"));
    answered.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    answered.insert(header::ETAG, etag::value(&tag));
    response
}

fn aggregated_resource(served: &GroupVersion, resource: &Resource) -> Value {
    let parts: Vec<Value> = resource
        .parts
        .iter()
        .map(|p| aggregated_part(served, p))
        .collect();
    let mut json = json!({
        "resource": resource.plural,
        "responseKind": {
            "group": served.group,
            "version": served.version,
            "kind": resource.kind,
        },
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular(),
        "verbs": resource.verbs,
    });
    names(&mut json, resource);
    if !parts.is_empty() {
        json["subresources"] = json!(parts);
    }
    json
}

fn aggregated_part(served: &GroupVersion, part: &Part) -> Value {
    let (group, version) = part.of.unwrap_or((served.group, served.version));
    json!({
        "subresource": part.name,
        "responseKind": {"group": group, "version": version, "kind": part.kind},
        "verbs": part.verbs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::authn::Asked;
    use crate::apiserver::query::Query;
    use crate::apiserver::request_info::RequestInfo;
    use crate::apiserver::route::Target;
    use http::Method;

    #[test]
    fn every_resource_of_the_table_has_a_route() {
        for served in SERVED {
            let root = match served.group {
                "" => format!("/api/{}", served.version),
                group => format!("/apis/{group}/{}", served.version),
            };
            for resource in served.resources {
                let place = if resource.namespaced {
                    "namespaces/a/"
                } else {
                    ""
                };
                let whole = format!("{root}/{place}{}", resource.plural);
                let parts = resource.parts.iter();
                let parts = parts.map(|part| format!("{whole}/x/{}", part.name));
                for path in parts.chain([whole.clone()]) {
                    let info = RequestInfo::parse(&Method::POST, &path, &Query::default());
                    let info = info.expect("a clean path");
                    let target = Target::of(&info).is_some();
                    assert!(target || Asked::of(&info).is_some(), "{path}");
                }
            }
        }
    }

    #[test]
    fn both_forms_name_the_same_resources() {
        let accept =
            |text| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(text))]);
        assert!(accepts_aggregated(&accept(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        )));
        assert!(!accepts_aggregated(&accept("application/json")));
        let core = resources(&SERVED[0]);
        let names: Vec<&str> = core["resources"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|resource| resource["name"].as_str())
            .collect();
        for name in [
            "pods",
            "pods/log",
            "pods/eviction",
            "serviceaccounts/token",
            "bindings",
        ] {
            assert!(names.contains(&name), "{name}");
        }
        let pods = SERVED[0]
            .resources
            .iter()
            .find(|r| r.plural == "pods")
            .expect("pods");
        let pods = aggregated_resource(&SERVED[0], pods);
        let parts = pods["subresources"].as_array().map_or(0, Vec::len);
        assert_eq!(
            parts,
            names
                .iter()
                .filter(|name| name.starts_with("pods/"))
                .count()
        );
        assert_eq!(pods["shortNames"], json!(["po"]));
    }
}
