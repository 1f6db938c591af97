//! The query parameters and options objects of writes. Pure.
//!
//! Source: Kubernetes apimachinery, apis/meta/v1/validation/validation.go.

use http::header::{HeaderMap, USER_AGENT};
use serde_json::Value;

use crate::apiserver::query::Query;
use crate::apiserver::status::Refusal;
use crate::registry::{Deletion, Precondition, Propagation};

/// Longest name of a field manager, in characters.
const MANAGER_CHARS_MAX: usize = 128;

/// What is done about fields that the kind does not have and keys that stand twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What create, update and patch have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// As given; empty if not.
    pub field_manager: String,
    /// Apply takes fields over from other managers.
    pub force: bool,
}

impl WriteOptions {
    /// `options` names them in errors: `CreateOptions`. Errors: 422 with the parameter.
    pub fn parse(query: &Query, options: &str) -> Result<WriteOptions, Refusal> {
        let field_validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let text = format!(
                    "Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                );
                return Err(Refusal::invalid_option(options, "fieldValidation", &text));
            }
        };
        let field_manager = query.get("fieldManager").unwrap_or_default();
        if field_manager.chars().count() > MANAGER_CHARS_MAX {
            let text = format!("Too long: may not be more than {MANAGER_CHARS_MAX} bytes");
            return Err(Refusal::invalid_option(options, "fieldManager", &text));
        }
        if field_manager.chars().any(char::is_control) {
            let text = format!(
                "Invalid value: {field_manager:?}: should only contain printable characters"
            );
            return Err(Refusal::invalid_option(options, "fieldManager", &text));
        }
        Ok(WriteOptions {
            dry_run: dry_run(query.all("dryRun"), options)?,
            field_validation,
            field_manager: field_manager.to_owned(),
            force: query.is_set("force"),
        })
    }

    /// Who is noted as the writer of fields: the name given, else the program's.
    pub fn manager(&self, headers: &HeaderMap) -> String {
        if !self.field_manager.is_empty() {
            return self.field_manager.clone();
        }
        let agent = headers
            .get(USER_AGENT)
            .and_then(|value| value.to_str().ok());
        let name = agent
            .unwrap_or_default()
            .split('/')
            .next()
            .unwrap_or_default();
        match name.chars().take(MANAGER_CHARS_MAX).collect::<String>() {
            name if name.is_empty() => "unknown".to_owned(),
            name => name,
        }
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, options: &str) -> Result<bool, Refusal> {
    let mut set = false;
    for value in values {
        if value != "All" {
            let text = format!("Unsupported value: [{value:?}]: supported values: \"All\"");
            return Err(Refusal::invalid_option(options, "dryRun", &text));
        }
        set = true;
    }
    Ok(set)
}

/// How something shall be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub deletion: Deletion,
    pub dry_run: bool,
    /// The older way to say what becomes of dependants.
    pub orphan_dependents: Option<bool>,
}

impl DeleteOptions {
    /// From a body (`Null` for none), else from the query, as upstream. Errors: 400 for what is no
    /// DeleteOptions, 422 with the field.
    pub fn parse(body: &Value, query: &Query) -> Result<DeleteOptions, Refusal> {
        if body.is_null() {
            return DeleteOptions::of_query(query);
        }
        let kind = body["kind"].as_str().unwrap_or("DeleteOptions");
        if !body.is_object() || kind != "DeleteOptions" {
            let text = format!("the body of a DELETE must be a DeleteOptions object, not {kind:?}");
            return Err(Refusal::bad_request(text));
        }
        let grace = &body["gracePeriodSeconds"];
        if !grace.is_null() && grace.as_i64().is_none() {
            let text = "DeleteOptions: gracePeriodSeconds must be a whole number";
            return Err(Refusal::bad_request(text));
        }
        let values = body["dryRun"].as_array().into_iter().flatten();
        let values = values.map(|value| value.as_str().unwrap_or_default());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(DeleteOptions {
            orphan_dependents: body["orphanDependents"].as_bool(),
            dry_run: dry_run(values, "DeleteOptions")?,
            deletion: Deletion {
                grace_s: grace.as_i64(),
                precondition: Precondition {
                    resource_version: text(&body["preconditions"]["resourceVersion"]),
                    uid: text(&body["preconditions"]["uid"]),
                },
                propagation: propagation(
                    body["propagationPolicy"].as_str(),
                    body["orphanDependents"].as_bool(),
                )?,
            },
        })
    }

    fn of_query(query: &Query) -> Result<DeleteOptions, Refusal> {
        let grace = query.get("gracePeriodSeconds").map(|text| {
            text.parse::<i64>()
                .map_err(|_| Refusal::bad_request(format!("invalid gracePeriodSeconds {text:?}")))
        });
        let orphan = query
            .get("orphanDependents")
            .map(|_| query.is_set("orphanDependents"));
        Ok(DeleteOptions {
            orphan_dependents: orphan,
            dry_run: dry_run(query.all("dryRun"), "DeleteOptions")?,
            deletion: Deletion {
                grace_s: grace.transpose()?,
                precondition: Precondition::default(),
                propagation: propagation(query.get("propagationPolicy"), orphan)?,
            },
        })
    }
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, Refusal> {
    let invalid = |text: &str| {
        Err(Refusal::invalid_option(
            "DeleteOptions",
            "propagationPolicy",
            text,
        ))
    };
    match (policy, orphan) {
        (Some(_), Some(_)) => {
            invalid("Invalid value: orphanDependents and deletionPropagation cannot be both set")
        }
        (Some("Background"), None) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some("Orphan"), None) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some(other), None) => invalid(&format!(
            "Unsupported value: {other:?}: supported values: \"Foreground\", \
             \"Background\", \"Orphan\", \"nil\""
        )),
        (None, None) => Ok(None),
    }
}
