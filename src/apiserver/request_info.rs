//! What a request is: verb, and resource or path. Read once; routing, authorization and admission
//! all decide on this one result, so that no two parts read a path differently. Pure.
//!
//! Source: Kubernetes apiserver, endpoints/request/requestinfo.go.

use http::Method;

use super::query::{Query, decode};
use super::status::Refusal;

/// A request, as authorization sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Under `/api/VERSION` or `/apis/GROUP/VERSION`, with a resource.
    pub is_resource: bool,
    /// Decoded, with `/` in front and without one at the end.
    pub path: String,
    /// `get list watch create update patch delete deletecollection` for resources, the method in
    /// lower case else.
    pub verb: String,
    /// Empty for core.
    pub group: String,
    pub version: String,
    /// Empty for all of them and for kinds that have none.
    pub namespace: String,
    /// `pods`; empty for none.
    pub resource: String,
    /// `log`; empty for none. What follows it (`proxy/a/b`) stays in `rest`.
    pub subresource: String,
    /// Empty for collections, unless a field selector asks for one name.
    pub name: String,
    /// The path itself names no object.
    pub is_collection: bool,
    /// Segments after the subresource.
    pub rest: Vec<String>,
    /// Of lists, watches and deletions of collections, as it was asked.
    pub field_selector: String,
}

impl RequestInfo {
    /// Errors: 404 for a path that is no clean path, so that no crooked spelling of one gets past
    /// a rule that was written for the straight one.
    pub fn parse(method: &Method, path: &str, query: &Query) -> Result<RequestInfo, Refusal> {
        let segments = segments(path).ok_or_else(Refusal::no_such_path)?;
        let verb = match *method {
            Method::HEAD => "get".to_owned(),
            ref other => other.as_str().to_ascii_lowercase(),
        };
        let mut info = RequestInfo {
            path: format!("/{}", segments.join("/")),
            verb,
            ..RequestInfo::default()
        };
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.resource_request("", version, rest, method, query);
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.resource_request(group, version, rest, method, query);
            }
            _ => {}
        }
        Ok(info)
    }

    fn resource_request(
        &mut self,
        group: &str,
        version: &str,
        segments: &[&str],
        method: &Method,
        query: &Query,
    ) {
        self.is_resource = true;
        group.clone_into(&mut self.group);
        version.clone_into(&mut self.version);
        // `namespaces/NAME` itself, and its own subresources, are requests in that namespace.
        let rest = match segments {
            ["namespaces", namespace, rest @ ..] => {
                (*namespace).clone_into(&mut self.namespace);
                match rest {
                    [] | ["status" | "finalize"] => segments,
                    rest => rest,
                }
            }
            all => all,
        };
        let mut rest = rest.iter().map(|segment| (*segment).to_owned());
        self.resource = rest.next().unwrap_or_default();
        self.name = rest.next().unwrap_or_default();
        self.subresource = rest.next().unwrap_or_default();
        self.rest = rest.collect();
        self.is_collection = self.name.is_empty();
        let verb = match *method {
            // With a name it is one object, or a stream into one, whatever the query says.
            Method::GET | Method::HEAD if query.is_set("watch") && self.subresource.is_empty() => {
                "watch"
            }
            Method::GET | Method::HEAD if self.name.is_empty() => "list",
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => return,
        };
        verb.clone_into(&mut self.verb);
        if self.is_collection && matches!(verb, "list" | "watch" | "deletecollection") {
            let fields = query.get("fieldSelector").unwrap_or_default();
            self.name = name_selected(fields).unwrap_or_default();
            fields.clone_into(&mut self.field_selector);
        }
    }

    /// `pods`, `pods/log`
    pub fn resource_path(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            sub => format!("{}/{sub}", self.resource),
        }
    }
}

/// Decoded segments; `None` if one is empty, a dot segment, or hides a separator.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    if path.is_empty() {
        return Some(Vec::new());
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| decode(segment).ok().filter(|text| is_segment(text)))
        .collect()
}

fn is_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '\0', '%'])
}

/// `metadata.name=x` among the field selectors.
fn name_selected(fields: &str) -> Option<String> {
    let mut requirements = fields.split(',');
    requirements.find_map(|requirement| {
        let rest = requirement.trim().strip_prefix("metadata.name")?;
        let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
        (!value.is_empty()).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, path: &str, query: &str) -> RequestInfo {
        let method = method.parse().expect("method");
        let query = Query::parse(query).expect("query");
        RequestInfo::parse(&method, path, &query).expect("a clean path")
    }

    /// Method, path, query: verb, group, namespace, resource, subresource, name
    const REQUESTS: &[(&str, &str, &str, [&str; 6])] = &[
        ("GET", "/api/v1/pods", "", ["list", "", "", "pods", "", ""]),
        (
            "GET",
            "/api/v1/pods",
            "watch=1",
            ["watch", "", "", "pods", "", ""],
        ),
        (
            "GET",
            "/api/v1/namespaces/a/pods/p",
            "",
            ["get", "", "a", "pods", "", "p"],
        ),
        (
            "GET",
            "/api/v1/namespaces/a/pods/p/log",
            "",
            ["get", "", "a", "pods", "log", "p"],
        ),
        (
            "GET",
            "/api/v1/namespaces/a/pods/p/exec",
            "watch=1",
            ["get", "", "a", "pods", "exec", "p"],
        ),
        (
            "POST",
            "/api/v1/namespaces/a/pods",
            "",
            ["create", "", "a", "pods", "", ""],
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/pods",
            "",
            ["deletecollection", "", "a", "pods", "", ""],
        ),
        (
            "DELETE",
            "/api/v1/namespaces/a/pods/p",
            "",
            ["delete", "", "a", "pods", "", "p"],
        ),
        (
            "PATCH",
            "/api/v1/namespaces/a",
            "",
            ["patch", "", "a", "namespaces", "", "a"],
        ),
        (
            "PUT",
            "/api/v1/namespaces/a/finalize",
            "",
            ["update", "", "a", "namespaces", "finalize", "a"],
        ),
        (
            "GET",
            "/api/v1/namespaces",
            "",
            ["list", "", "", "namespaces", "", ""],
        ),
        (
            "GET",
            "/api/v1/nodes/n/proxy/a/b",
            "",
            ["get", "", "", "nodes", "proxy", "n"],
        ),
        (
            "GET",
            "/api/v1/pods",
            "fieldSelector=metadata.name%3Dx",
            ["list", "", "", "pods", "", "x"],
        ),
        (
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/pi",
            "",
            [
                "update",
                "coordination.k8s.io",
                "kube-node-lease",
                "leases",
                "",
                "pi",
            ],
        ),
    ];

    #[test]
    fn requests_are_read_as_upstream_reads_them() {
        for (method, path, query, [verb, group, namespace, resource, subresource, name]) in
            REQUESTS.iter().copied()
        {
            let got = info(method, path, query);
            let told = [
                &*got.verb,
                &*got.group,
                &*got.namespace,
                &*got.resource,
                &*got.subresource,
                &*got.name,
            ];
            assert!(got.is_resource, "{path}");
            assert_eq!(
                told,
                [verb, group, namespace, resource, subresource, name],
                "{method} {path}"
            );
        }
    }

    #[test]
    fn other_paths_are_no_resources() {
        for path in [
            "/",
            "/version",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/g/v1",
            "/healthz/ping",
        ] {
            let got = info("GET", path, "");
            assert!(!got.is_resource, "{path}");
            assert_eq!((got.verb.as_str(), got.path.as_str()), ("get", path));
        }
    }

    #[test]
    fn crooked_paths_are_refused() {
        let table = [
            "",
            "pods",
            "/api//v1",
            "//api/v1/pods",
            "/api/v1/../v1/pods",
            "/api/v1/namespaces/%2e%2e/pods",
            "/api/v1/namespaces/a%2fb/pods",
            "/api/v1/namespaces/a%252fb/pods",
        ];
        for path in table {
            let query = Query::default();
            assert!(
                RequestInfo::parse(&Method::GET, path, &query).is_err(),
                "{path}"
            );
        }
    }
}
