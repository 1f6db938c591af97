//! The schemas of a group version's kinds and of all that they refer to.

use std::collections::BTreeSet;

use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::authorization::v1 as authorization;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::scheduling::v1 as scheduling;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::object::Kind;
use crate::object::schema::{self, Patch, Place};
use crate::served::GroupVersion;

const PREFIX: &str = "#/components/schemas/";

/// Components by name, cut to what the group version names.
pub fn schemas(served: &GroupVersion) -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    refer::<meta::DeleteOptions>(&mut generator);
    refer::<meta::Status>(&mut generator);
    refer::<meta::ListMeta>(&mut generator);
    let mut roots = Vec::new();
    for resource in served.resources {
        let whole = (served.group, served.version, resource.kind);
        let parts = resource.parts.iter().map(|part| {
            let (group, version) = part.of.unwrap_or((served.group, served.version));
            (group, version, part.kind)
        });
        for (group, version, kind) in parts.chain([whole]) {
            if let Some(name) = schema_name(group, kind, &mut generator) {
                roots.push((name, group, version, kind));
            }
        }
    }
    let mut schemas = generator.take_definitions(true);
    for resource in served
        .resources
        .iter()
        .filter(|resource| resource.verbs.contains(&"list"))
    {
        let root = roots.iter().find(|(.., kind)| *kind == resource.kind);
        if let Some((name, ..)) = root {
            schemas.insert(format!("{name}List"), list_schema(name, resource.kind));
        }
    }
    for (name, schema) in &mut schemas {
        tidy(schema);
        // What all groups share is explained once, in the document of the core.
        if !served.group.is_empty() && name.contains(".meta.v1.") {
            silence(schema);
        }
    }
    for (name, group, version, kind) in roots {
        // Types that always write it call it required; nobody has to give it.
        if let Some(required) = schemas[&name]["required"].as_array_mut() {
            required.retain(|field| field != "metadata");
        }
        schemas[&name]["x-kubernetes-group-version-kind"] =
            json!([{"group": group, "version": version, "kind": kind}]);
        if let Some(kind) = Kind::from_name(kind) {
            let mut seen = BTreeSet::new();
            annotate(&mut schemas, &name, Place::root(kind), &mut seen);
        }
    }
    schemas
}

/// A reference to a kind's schema; `None` for kinds that have none here (`PodExecOptions`).
pub fn reference(group: &str, kind: &str) -> Option<Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let name = schema_name(group, kind, &mut generator)?;
    Some(json!({"$ref": format!("{PREFIX}{name}")}))
}

/// The same for what deletions bring and leave.
pub fn reference_to_delete_options() -> Value {
    json!({"$ref": format!("{PREFIX}{}", meta::DeleteOptions::schema_name())})
}

pub fn reference_to_status() -> Value {
    json!({"$ref": format!("{PREFIX}{}", meta::Status::schema_name())})
}

/// From a reference to a kind to one to its list.
pub fn list_of(reference: &Value) -> Value {
    let name = reference["$ref"].as_str().unwrap_or_default();
    json!({"$ref": format!("{name}List")})
}

/// Makes sure that a kind is among the definitions; its name there.
fn schema_name(group: &str, kind: &str, to: &mut SchemaGenerator) -> Option<String> {
    let name = match (group, kind) {
        ("", "Binding") => refer::<core::Binding>(to),
        ("", "ConfigMap") => refer::<core::ConfigMap>(to),
        ("", "Endpoints") => refer::<core::Endpoints>(to),
        ("", "Event") => refer::<core::Event>(to),
        ("", "LimitRange") => refer::<core::LimitRange>(to),
        ("", "Namespace") => refer::<core::Namespace>(to),
        ("", "Node") => refer::<core::Node>(to),
        ("", "Pod") => refer::<core::Pod>(to),
        ("", "ResourceQuota") => refer::<core::ResourceQuota>(to),
        ("", "Secret") => refer::<core::Secret>(to),
        ("", "Service") => refer::<core::Service>(to),
        ("", "ServiceAccount") => refer::<core::ServiceAccount>(to),
        ("authentication.k8s.io", "SelfSubjectReview") => {
            refer::<authentication::SelfSubjectReview>(to)
        }
        ("authentication.k8s.io", "TokenRequest") => refer::<authentication::TokenRequest>(to),
        ("authentication.k8s.io", "TokenReview") => refer::<authentication::TokenReview>(to),
        ("authorization.k8s.io", "LocalSubjectAccessReview") => {
            refer::<authorization::LocalSubjectAccessReview>(to)
        }
        ("authorization.k8s.io", "SelfSubjectAccessReview") => {
            refer::<authorization::SelfSubjectAccessReview>(to)
        }
        ("authorization.k8s.io", "SelfSubjectRulesReview") => {
            refer::<authorization::SelfSubjectRulesReview>(to)
        }
        ("authorization.k8s.io", "SubjectAccessReview") => {
            refer::<authorization::SubjectAccessReview>(to)
        }
        ("coordination.k8s.io", "Lease") => refer::<coordination::Lease>(to),
        ("events.k8s.io", "Event") => refer::<events::Event>(to),
        ("policy", "Eviction") => refer::<policy::Eviction>(to),
        ("scheduling.k8s.io", "PriorityClass") => refer::<scheduling::PriorityClass>(to),
        _ => return None,
    };
    Some(name)
}

fn refer<T: JsonSchema>(generator: &mut SchemaGenerator) -> String {
    generator.subschema_for::<T>();
    T::schema_name().into_owned()
}

/// The list of a kind.
fn list_schema(name: &str, kind: &str) -> Value {
    let metadata = meta::ListMeta::schema_name();
    json!({
        "description": format!("{kind}List is a list of {kind} objects."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "group and version"},
            "kind": {"type": "string", "description": "the list's own kind"},
            "metadata": {"$ref": format!("{PREFIX}{metadata}")},
            "items": {"type": "array", "items": {"$ref": format!("{PREFIX}{name}")}},
        },
    })
}

/// As upstream writes it: what stands beside a reference is lost on readers of OpenAPI 3.0, and a
/// value of several types says which.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.len() > 1
                && let Some(reference) = fields.remove("$ref")
            {
                fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
            if fields.remove("x-kubernetes-int-or-string").is_some() {
                let types = json!([{"type": "integer"}, {"type": "string"}]);
                fields.insert("oneOf".to_owned(), types);
                fields.insert("format".to_owned(), json!("int-or-string"));
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Takes away all that explains; no field of these types has that name.
fn silence(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("description");
            fields.values_mut().for_each(silence);
        }
        Value::Array(items) => items.iter_mut().for_each(silence),
        _ => {}
    }
}

/// Writes the merge keys of a type into its schema and, once each, into those of its fields.
fn annotate(
    schemas: &mut Map<String, Value>,
    name: &str,
    place: Place,
    seen: &mut BTreeSet<String>,
) {
    if !seen.insert(name.to_owned()) {
        return;
    }
    if place.of.atomic {
        schemas[name]["x-kubernetes-map-type"] = json!("atomic");
    }
    let fields = match schemas[name]["properties"].as_object() {
        Some(fields) => fields.keys().cloned().collect::<Vec<_>>(),
        None => return,
    };
    for field in fields {
        let below = place.field(&field);
        let property = &mut schemas[name]["properties"][&field];
        let target = match property["type"].as_str() {
            Some("array") => {
                annotate_list(property, below);
                referred(&property["items"]).map(|name| (name, below.of_element()))
            }
            Some("object") if below.of.atomic => {
                property["x-kubernetes-map-type"] = json!("atomic");
                None
            }
            _ => referred(property).map(|name| (name, below)),
        };
        if let Some((name, place)) = target {
            annotate(schemas, &name, place, seen);
        }
    }
}

fn annotate_list(property: &mut Value, place: Place) {
    let kind = match place.list {
        schema::List::Atomic => "atomic",
        schema::List::Set => "set",
        schema::List::Map(keys) => {
            property["x-kubernetes-list-map-keys"] = json!(keys);
            "map"
        }
    };
    property["x-kubernetes-list-type"] = json!(kind);
    let (strategy, key) = match place.patch {
        Patch::Replace => return,
        Patch::MergeScalars => ("merge", None),
        Patch::Merge(key) => ("merge", Some(key)),
        Patch::MergeRetainKeys(key) => ("merge,retainKeys", Some(key)),
    };
    property["x-kubernetes-patch-strategy"] = json!(strategy);
    if let Some(key) = key {
        property["x-kubernetes-patch-merge-key"] = json!(key);
    }
}

/// The component that a schema is.
fn referred(schema: &Value) -> Option<String> {
    let reference = match &schema["$ref"] {
        Value::String(reference) => reference,
        _ => schema["allOf"][0]["$ref"].as_str()?,
    };
    Some(reference.strip_prefix(PREFIX)?.to_owned())
}
