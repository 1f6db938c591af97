//! Objects as table rows: what `kubectl get` prints. One file for each kind, pure functions over
//! JSON; the server renders them, so that every client shows the same cells.
//!
//! Source: Kubernetes pkg/printers/internalversion.

mod config;
pub mod duration;
mod event;
mod node;
mod pod;
mod policy;
mod services;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::Kind;

/// One column. `wide` ones are sent always and shown with `-o wide` (priority 1).
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub name: &'static str,
    pub wide: bool,
}

const fn plain(name: &'static str) -> Column {
    Column { name, wide: false }
}

const fn wide(name: &'static str) -> Column {
    Column { name, wide: true }
}

/// What a row shows beside its cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub cells: Vec<Value>,
    /// A pod that has ended: reason and message of the row condition `Completed`.
    pub completed: Option<(String, String)>,
}

impl Row {
    fn of(cells: Vec<Value>) -> Row {
        Row {
            cells,
            completed: None,
        }
    }
}

/// How much of the object a row carries. Source: `includeObject` of meta/v1 TableOptions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

pub fn columns(kind: Kind) -> &'static [Column] {
    match kind {
        Kind::Pod => pod::COLUMNS,
        Kind::Node => node::COLUMNS,
        Kind::Event => event::COLUMNS,
        Kind::Secret => config::SECRET_COLUMNS,
        Kind::ConfigMap => config::CONFIG_MAP_COLUMNS,
        Kind::Namespace => config::NAMESPACE_COLUMNS,
        Kind::ServiceAccount => config::SERVICE_ACCOUNT_COLUMNS,
        Kind::Service => services::SERVICE_COLUMNS,
        Kind::Endpoints => services::ENDPOINTS_COLUMNS,
        Kind::LimitRange => policy::LIMIT_RANGE_COLUMNS,
        Kind::ResourceQuota => policy::RESOURCE_QUOTA_COLUMNS,
        Kind::Lease => policy::LEASE_COLUMNS,
        Kind::PriorityClass => policy::PRIORITY_CLASS_COLUMNS,
    }
}

/// The cells of one object, one for each column.
pub fn row(kind: Kind, object: &Value, now: Timestamp) -> Row {
    match kind {
        Kind::Pod => pod::row(object, now),
        Kind::Node => Row::of(node::cells(object, now)),
        Kind::Event => Row::of(event::cells(object, now)),
        Kind::Secret => Row::of(config::secret(object, now)),
        Kind::ConfigMap => Row::of(config::config_map(object, now)),
        Kind::Namespace => Row::of(config::namespace(object, now)),
        Kind::ServiceAccount => Row::of(config::service_account(object, now)),
        Kind::Service => Row::of(services::service(object, now)),
        Kind::Endpoints => Row::of(services::endpoints(object, now)),
        Kind::LimitRange => Row::of(policy::limit_range(object, now)),
        Kind::ResourceQuota => Row::of(policy::resource_quota(object, now)),
        Kind::Lease => Row::of(policy::lease(object, now)),
        Kind::PriorityClass => Row::of(policy::priority_class(object, now)),
    }
}

/// `columnDefinitions` of a Table.
pub fn column_definitions(kind: Kind) -> Value {
    columns(kind)
        .iter()
        .map(|column| {
            let format = if column.name == "Name" { "name" } else { "" };
            json!({
                "name": column.name,
                "type": "string",
                "format": format,
                "description": "",
                "priority": i32::from(column.wide),
            })
        })
        .collect()
}

/// One entry of a Table's `rows`.
pub fn row_json(kind: Kind, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let row = row(kind, object, now);
    let mut json = json!({"cells": row.cells});
    if let Some((reason, message)) = row.completed {
        json["conditions"] = json!([
            {"type": "Completed", "status": "True", "reason": reason, "message": message},
        ]);
    }
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => json["object"] = metadata_only(object),
        IncludeObject::Object => json["object"] = object.clone(),
    }
    json
}

/// A `PartialObjectMetadata` of the object.
pub fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn age(object: &Value, now: Timestamp) -> Value {
    duration::since(&object["metadata"]["creationTimestamp"], now).into()
}

/// The text at `value`, or `absent` if there is none.
fn text_or<'a>(value: &'a Value, absent: &'a str) -> &'a str {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or(absent)
}
