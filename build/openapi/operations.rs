//! The operations at each path: what clients look up before they write.

use serde_json::{Map, Value, json};

use super::types;
use crate::served::{GroupVersion, Resource};

const JSON: &str = "application/json";
/// What a PATCH may carry. Source: the types that the server itself reads.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// One kind at one path.
struct At<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    /// Whether it has a name of its own in the path, or stands for all of them.
    scope: Scope,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Collection,
    One,
    Part,
}

/// All paths of a group version; `root` is `api/v1`.
pub fn paths(served: &GroupVersion, root: &str) -> Map<String, Value> {
    let mut paths = Map::new();
    for resource in served.resources {
        let plural = resource.plural;
        let place = match resource.namespaced {
            true => format!("/{root}/namespaces/{{namespace}}/{plural}"),
            false => format!("/{root}/{plural}"),
        };
        let at = |scope| At {
            group: served.group,
            version: served.version,
            kind: resource.kind,
            scope,
        };
        let named = format!("{place}/{{name}}");
        add(
            &mut paths,
            &place,
            resource,
            &at(Scope::Collection),
            resource.verbs,
        );
        add(
            &mut paths,
            &named,
            resource,
            &at(Scope::One),
            resource.verbs,
        );
        if resource.namespaced && resource.verbs.contains(&"list") {
            let all = format!("/{root}/{plural}");
            add(
                &mut paths,
                &all,
                resource,
                &at(Scope::Collection),
                &["list"],
            );
        }
        for part in resource.parts {
            let (group, version) = part.of.unwrap_or((served.group, served.version));
            let at = At {
                group,
                version,
                kind: part.kind,
                scope: Scope::Part,
            };
            let path = format!("{named}/{}", part.name);
            add(&mut paths, &path, resource, &at, part.verbs);
        }
    }
    paths
}

fn add(
    paths: &mut Map<String, Value>,
    path: &str,
    resource: &Resource,
    at: &At<'_>,
    verbs: &[&str],
) {
    let mut item = Map::new();
    for verb in verbs {
        if let Some(method) = method(verb, at.scope) {
            item.insert(method.to_owned(), operation(verb, at));
        }
    }
    if item.is_empty() {
        return;
    }
    let in_path = |name: &str, what: &str| {
        json!({
            "name": name,
            "in": "path",
            "required": true,
            "description": what,
            "schema": {"type": "string", "uniqueItems": true},
        })
    };
    let mut parameters = Vec::new();
    if path.contains("{name}") {
        parameters.push(in_path("name", &format!("name of the {}", resource.kind)));
    }
    if path.contains("{namespace}") {
        parameters.push(in_path("namespace", "namespace that it is in"));
    }
    item.insert("parameters".to_owned(), json!(parameters));
    paths.insert(path.to_owned(), Value::Object(item));
}

/// The method by which a verb is asked for in a scope.
fn method(verb: &str, scope: Scope) -> Option<&'static str> {
    match (verb, scope) {
        ("list" | "get", Scope::Part) | ("list", Scope::Collection) | ("get", Scope::One) => {
            Some("get")
        }
        ("create", Scope::Collection | Scope::Part) => Some("post"),
        ("update", Scope::One | Scope::Part) => Some("put"),
        ("patch", Scope::One | Scope::Part) => Some("patch"),
        ("delete", Scope::One | Scope::Part) | ("deletecollection", Scope::Collection) => {
            Some("delete")
        }
        _ => None,
    }
}

fn operation(verb: &str, at: &At<'_>) -> Value {
    let own = types::reference(at.group, at.kind);
    let status = types::reference_to_status();
    let answered = match verb {
        "delete" | "deletecollection" => Some(status),
        "list" => own.as_ref().map(types::list_of),
        _ => own.clone(),
    };
    let content = |schema: Option<Value>| match schema {
        Some(schema) => json!({JSON: {"schema": schema}}),
        None => json!({"*/*": {"schema": {"type": "string"}}}),
    };
    let mut operation = json!({
        "x-kubernetes-action": action(verb),
        "x-kubernetes-group-version-kind": {
            "group": at.group,
            "version": at.version,
            "kind": at.kind,
        },
        "parameters": parameters(verb),
        "responses": {
            "200": {"description": "OK", "content": content(answered)},
            "401": {"description": "Unauthorized"},
        },
    });
    let body = match verb {
        "create" | "update" => own.map(|schema| json!({"*/*": {"schema": schema}})),
        "patch" => {
            let any = || json!({"schema": {"type": "object"}});
            Some(
                PATCHES
                    .iter()
                    .map(|form| ((*form).to_owned(), any()))
                    .collect(),
            )
        }
        "delete" | "deletecollection" => {
            Some(json!({"*/*": {"schema": types::reference_to_delete_options()}}))
        }
        _ => None,
    };
    if let Some(content) = body {
        operation["requestBody"] = json!({"content": content});
    }
    operation
}

fn action(verb: &str) -> &str {
    match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    }
}

/// Name, type and meaning of what may stand in a query.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "All: go through everything and store nothing",
);
const FORCE: Parameter = ("force", "boolean", "take fields over from other managers");
const WRITE: &[Parameter] = &[
    DRY_RUN,
    (
        "fieldManager",
        "string",
        "who is noted as the writer of the fields",
    ),
    (
        "fieldValidation",
        "string",
        "unknown and duplicate fields: Ignore, Warn or Strict",
    ),
];
const SELECT: &[Parameter] = &[
    ("labelSelector", "string", "only objects with such labels"),
    ("fieldSelector", "string", "only objects with such fields"),
];
const LIST: &[Parameter] = &[
    ("limit", "integer", "most objects in one answer"),
    ("continue", "string", "where the answer before ended"),
    ("resourceVersion", "string", "how old the answer may be"),
    (
        "resourceVersionMatch",
        "string",
        "how resourceVersion is meant",
    ),
    ("timeoutSeconds", "integer", "longest duration"),
    ("watch", "boolean", "tell changes as they happen"),
    (
        "allowWatchBookmarks",
        "boolean",
        "tell versions without changes now and then",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "begin a watch with what is there",
    ),
];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "time to end in"),
    (
        "orphanDependents",
        "boolean",
        "deprecated: see propagationPolicy",
    ),
    (
        "propagationPolicy",
        "string",
        "dependents: Orphan, Background or Foreground",
    ),
];

fn parameters(verb: &str) -> Vec<Value> {
    let parameter = |(name, kind, what): &Parameter| {
        json!({
            "name": name,
            "in": "query",
            "description": what,
            "schema": {"type": kind, "uniqueItems": true},
        })
    };
    match verb {
        "list" => SELECT.iter().chain(LIST).map(parameter).collect(),
        "create" | "update" => WRITE.iter().map(parameter).collect(),
        "patch" => WRITE.iter().chain([&FORCE]).map(parameter).collect(),
        "delete" => DELETE.iter().map(parameter).collect(),
        "deletecollection" => DELETE.iter().chain(SELECT).map(parameter).collect(),
        _ => Vec::new(),
    }
}
