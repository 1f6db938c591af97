//! `/openapi/v3`: the index, and a document for each group version. `/openapi/v2` is empty.
//!
//! The documents are made while the program is built and kept compressed: who accepts gzip gets
//! them as they are, for others they are inflated piece by piece.
//! Source: Kubernetes kube-openapi, pkg/handler3.

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use futures_lite::stream;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use serde_json::{Map, json};

use super::etag;
use super::query::Query;
use super::status::{Refusal, json_response, typed_response};
use crate::net::serve::{Body, Response};
use crate::object::gather::Gather;

include!(concat!(env!("OUT_DIR"), "/openapi.rs"));

/// So much is inflated at a time.
const PIECE_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenApi {
    V2,
    V3,
}

/// What a version has: of version 3 where each document is. Its hash is in the URL, so that a client
/// may keep it for good.
pub fn index(version: OpenApi, headers: &HeaderMap) -> Response {
    if version == OpenApi::V2 {
        return no_schemas(headers);
    }
    let paths = DOCUMENTS.iter().map(|(name, gzip)| {
        let url = url(name, &etag::of(gzip));
        ((*name).to_owned(), json!({"serverRelativeURL": url}))
    });
    let paths: Map<_, _> = paths.gathered();
    json_response(StatusCode::OK, &json!({"paths": paths}))
}

/// Of version 2: none. Whoever finds a kind in no document of version 3 (kubectl, for a list
/// or a kind that is not served) asks here, and takes no answer for a broken server.
fn no_schemas(headers: &HeaderMap) -> Response {
    const JSON: &[u8] =
        br#"{"swagger":"2.0","info":{"title":"Kubernetes","version":"v1"},"paths":{}}"#;
    // The same as openapi.v2.Document: swagger = 1, info = 2 {title = 1, version = 2}, paths = 8.
    const PROTOBUF: &[u8] = b"\x0a\x032.0\x12\x10\x0a\x0aKubernetes\x12\x02v1\x42\x00";
    const PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let accepted = headers.get(header::ACCEPT);
    let accepted = accepted.and_then(|value| value.to_str().ok());
    let (media_type, document) = match accepted.unwrap_or_default().contains("spec.v2") {
        true => (PROTOBUF_TYPE, PROTOBUF),
        false => ("application/json", JSON),
    };
    typed_response(StatusCode::OK, media_type, Body::bytes(document))
}

fn url(name: &str, tag: &str) -> String {
    format!("/openapi/v3/{name}?hash={tag}")
}

/// The document of `apis/GROUP/VERSION`. Errors: 404.
pub fn document(name: &str, headers: &HeaderMap, query: &Query) -> Result<Response, Refusal> {
    let mut all = DOCUMENTS.iter();
    let found = all.find(|(known, _)| *known == name);
    let (_, gzip) = found.ok_or_else(Refusal::no_such_path)?;
    let tag = etag::of(gzip);
    let asked = query.get("hash");
    if asked.is_some_and(|hash| hash != tag) {
        return Ok(moved(&url(name, &tag)));
    }
    let packed = accepts_gzip(headers);
    let known = etag::is_known(headers, &tag);
    let (code, body) = match (known, packed) {
        (true, _) => (StatusCode::NOT_MODIFIED, Body::empty()),
        (false, true) => (StatusCode::OK, Body::bytes(*gzip)),
        (false, false) => (StatusCode::OK, Body::stream(stream::iter(inflated(gzip)))),
    };
    let mut response = typed_response(code, "application/json", body);
    let answered = response.headers_mut();
    answered.insert(header::ETAG, etag::value(&tag));
    answered.insert(
        header::VARY,
        HeaderValue::from_static("Accept, Accept-Encoding"),
    );
    if packed && !known {
        answered.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if asked.is_some() {
        let kept = HeaderValue::from_static("public, immutable, max-age=31536000");
        answered.insert(header::CACHE_CONTROL, kept);
    }
    Ok(response)
}

fn moved(url: &str) -> Response {
    let code = StatusCode::MOVED_PERMANENTLY;
    let mut response = typed_response(code, "text/plain; charset=utf-8", Body::empty());
    let place = HeaderValue::from_str(url).expect("a URL of ours");
    response.headers_mut().insert(header::LOCATION, place);
    response
}

/// Whether a client reads gzip. Source: RFC 9110, section 12.5.3.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    let mut codings = accepted.flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
        name.trim().eq_ignore_ascii_case("gzip") && weight.parse::<f32>().is_ok_and(|q| q > 0.0)
    })
}

fn inflated(gzip: &'static [u8]) -> impl Iterator<Item = Bytes> {
    let mut reader = GzDecoder::new(gzip);
    std::iter::from_fn(move || {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = reader
            .by_ref()
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece);
        read.expect("a document of this program is whole");
        (!piece.is_empty()).then(|| piece.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::protobuf;
    use serde_json::Value;

    fn read(name: &str) -> Value {
        let mut all = DOCUMENTS.iter();
        let (_, gzip) = all.find(|(known, _)| *known == name).expect(name);
        let text: Vec<u8> = inflated(gzip).flatten().collect();
        serde_json::from_slice(&text).expect("JSON")
    }

    #[test]
    fn kinds_can_be_explained_and_every_reference_leads_somewhere() {
        for (name, _) in DOCUMENTS {
            let document = read(name);
            let schemas = &document["components"]["schemas"];
            let text = document.to_string();
            let references = text.split("\"#/components/schemas/").skip(1);
            for reference in references.filter_map(|rest| rest.split('"').next()) {
                assert!(schemas[reference].is_object(), "{name}: {reference}");
            }
        }
        let core = read("api/v1");
        let pod = &core["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
        let kind = json!([{"group": "", "version": "v1", "kind": "Pod"}]);
        assert_eq!(pod["x-kubernetes-group-version-kind"], kind);
        let description = pod["description"].as_str().unwrap_or_default();
        assert!(description.starts_with("Pod is a collection of containers"));
    }

    #[test]
    fn a_patch_says_that_fields_are_validated() {
        let core = read("api/v1");
        let patch = &core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Pod");
        let parameters = patch["parameters"].as_array().into_iter().flatten();
        let names: Vec<&str> = parameters.filter_map(|p| p["name"].as_str()).collect();
        assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"));
    }

    #[test]
    fn lists_carry_the_keys_that_patches_go_by() {
        let core = read("api/v1");
        let schemas = &core["components"]["schemas"];
        let spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"];
        let containers = &spec["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(spec["nodeSelector"]["x-kubernetes-map-type"], "atomic");
        let container = &schemas["io.k8s.api.core.v1.Container"]["properties"];
        assert_eq!(
            container["ports"]["x-kubernetes-patch-merge-key"],
            "containerPort"
        );
        assert_eq!(container["args"]["x-kubernetes-list-type"], "atomic");
    }

    #[test]
    fn protobuf_knows_every_field_of_the_schemas() {
        for (name, package) in [
            ("api/v1", "core"),
            ("apis/coordination.k8s.io/v1", "coordination"),
        ] {
            let document = read(name);
            let schemas = document["components"]["schemas"]
                .as_object()
                .expect("schemas");
            for (schema, described) in schemas {
                let Some(fields) = schema
                    .strip_prefix(&format!("io.k8s.api.{package}.v1."))
                    .and_then(|kind| protobuf::field_names(&format!("{package}.{kind}")))
                else {
                    continue;
                };
                let properties = described["properties"].as_object().into_iter().flatten();
                for (property, _) in properties {
                    let type_meta = matches!(property.as_str(), "apiVersion" | "kind");
                    let known = fields.contains(&property.as_str());
                    assert!(known || type_meta, "{schema}: {property}");
                }
            }
        }
    }

    #[test]
    fn gzip_is_taken_at_its_weight() {
        let table = [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
        ];
        for (accepted, expected) in table {
            let value = HeaderValue::from_static(accepted);
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]);
            assert_eq!(accepts_gzip(&headers), expected, "{accepted}");
        }
    }
}
