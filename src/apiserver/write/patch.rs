//! PATCH: what the object would be is worked out from a snapshot here, and replaced there only if
//! the snapshot is still the newest; else once more, as upstream does.
//!
//! Source: Kubernetes apiserver, endpoints/handlers/patch.go.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::fields;
use super::options::{FieldValidation, WriteOptions};
use super::{Outcome, ShownAs, Writing, body, events, metadata, refusals};
use crate::apiserver::Counted;
use crate::apiserver::backend::{self, Write, Written};
use crate::apiserver::route::Place;
use crate::apiserver::status::Refusal;
use crate::net::serve::{Request, Response};
use crate::object::apply::{self, Contested, Writer};
use crate::object::{self, Kind, Object, json, patch, yaml};
use crate::registry::{self, Precondition};

/// How often a patch is worked out before a conflict is the answer. Upstream: `MaxRetryWhenPatchConflicts`.
const TRIES_MAX: usize = 6;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Merge,
    Strategic,
    Apply,
}

/// A patch, read and not yet applied.
struct Patch {
    form: Form,
    value: Value,
    duplicates: Vec<String>,
    options: WriteOptions,
    /// Who is noted as the writer of what changes.
    manager: String,
    /// What was read counts while it is in use.
    _weight: Counted,
}

/// What a patch makes of an object.
struct Patched {
    body: Value,
    warnings: Vec<String>,
}

impl Writing {
    /// `PATCH` of an object or a part of it: 200 and the object, 201 if an apply made it.
    pub async fn patch(
        &self,
        place: &Place,
        subresource: &'static str,
        request: Request,
    ) -> Result<Response, Refusal> {
        let patch = self.read_patch(request).await?;
        for _ in 1..TRIES_MAX {
            match self.try_patch(place, subresource, &patch).await? {
                Tried::Done(outcome) => return Ok(self.respond(place.kind, outcome)),
                Tried::Overtaken(_) => {}
            }
        }
        match self.try_patch(place, subresource, &patch).await? {
            Tried::Done(outcome) => Ok(self.respond(place.kind, outcome)),
            Tried::Overtaken(error) => Err(refusals::refusal(error, &self.shared.reader)),
        }
    }

    async fn read_patch(&self, request: Request) -> Result<Patch, Refusal> {
        let form = match body::media_type(&self.headers).as_str() {
            JSON_PATCH => Form::Json,
            MERGE => Form::Merge,
            STRATEGIC => Form::Strategic,
            APPLY => Form::Apply,
            _ => return Err(Refusal::no_form_of_patch()),
        };
        let options = self.options("PatchOptions")?;
        let invalid = |field, why| Err(Refusal::invalid_option("PatchOptions", field, why));
        match form {
            Form::Apply if options.field_manager.is_empty() => {
                return invalid(
                    "fieldManager",
                    "Required value: is required for apply patch",
                );
            }
            Form::Apply => {}
            _ if self.query.get("force").is_some() => {
                return invalid(
                    "force",
                    "Forbidden: may not be specified for non-apply patch",
                );
            }
            _ => {}
        }
        let whole = body::whole(request, &self.shared).await?;
        let (value, duplicates) = read(form, &whole.bytes)?;
        Ok(Patch {
            form,
            value,
            duplicates,
            manager: options.manager(&self.headers),
            options,
            _weight: whole.weight,
        })
    }

    async fn try_patch(
        &self,
        place: &Place,
        subresource: &'static str,
        patch: &Patch,
    ) -> Result<Tried, Refusal> {
        let key = self.key(place)?;
        let live = self.shared.reader.get(&key);
        let Some(live) = live else {
            if patch.form != Form::Apply || !subresource.is_empty() {
                return Err(Refusal::not_found(place.kind, &place.name));
            }
            self.check_creates()?;
            let patched = self.work_out(place, subresource, None, patch)?;
            let uid = metadata(&patched.body, "uid");
            if !uid.is_empty() {
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object \
                     was found"
                );
                return Err(Refusal::conflict(place.kind, &place.name, &why));
            }
            let made = self.make(key.clone(), patched.body, &patch.options, None);
            return match made.await {
                Ok(made) => Ok(Tried::done(StatusCode::CREATED, made, patched.warnings)),
                // Somebody else was quicker: then this one changes it.
                Err(_) if self.shared.reader.contains(&key) => {
                    Ok(Tried::Overtaken(registry::Error::AlreadyExists(key)))
                }
                Err(refusal) => Err(refusal),
            };
        };
        let mut patched = self.work_out(place, subresource, Some(&live), patch)?;
        let version = live.metadata()["resourceVersion"].clone();
        let given = metadata(&patched.body, "resourceVersion");
        let asks = !given.is_empty() && *given != version;
        if !asks {
            patched.body["metadata"]["resourceVersion"] = version;
        }
        if patch.form != Form::Apply {
            check_uid(place, &live, &patched.body)?;
        }
        let mut actor = self.actor(subresource, patch.options.dry_run);
        actor.manager = (patch.form != Form::Apply).then(|| patch.manager.clone());
        let write = Write::Update(patched.body, Precondition::default());
        let request = backend::WriteRequest { actor, key, write };
        match self.ask_registry(request).await? {
            Ok(written) => Ok(Tried::done(StatusCode::OK, written, patched.warnings)),
            Err(error @ registry::Error::Conflict { .. }) if !asks => Ok(Tried::Overtaken(error)),
            Err(error) => Err(refusals::refusal(error, &self.shared.reader)),
        }
    }

    fn work_out(
        &self,
        place: &Place,
        subresource: &str,
        live: Option<&Arc<Object>>,
        patch: &Patch,
    ) -> Result<Patched, Refusal> {
        let kind = place.kind;
        let before = live.map(|object| &object.body);
        let mut body = match (patch.form, before) {
            (Form::Apply, before) => {
                let time = self.shared.clock.wall();
                let writer = Writer {
                    manager: &patch.manager,
                    subresource,
                    time: &time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                };
                let mut applied = self.stored(patch.value.clone());
                fields::settle_apply(&mut applied, place)?;
                let contested = match patch.options.force {
                    true => Contested::Take,
                    false => Contested::Refuse,
                };
                apply::apply(kind, before, &applied, &writer, contested)
                    .map_err(Refusal::of_apply)?
            }
            (_, None) => return Err(Refusal::not_found(kind, &place.name)),
            (form, Some(before)) => {
                let (shown, change) = (self.format.version.show(before), patch.value.clone());
                let patched = match form {
                    Form::Json => patch::json_patch(shown, &change),
                    Form::Merge => patch::merge_patch(shown, change),
                    Form::Strategic | Form::Apply => patch::strategic_merge(kind, shown, change),
                };
                self.stored(patched.map_err(Refusal::of_patch)?)
            }
        };
        object::fill_texts(&mut body);
        self.check_version_rules(&place.name, before, &body)?;
        fields::settle_namespace(&mut body, &place.namespace)?;
        fields::check_name(&body, &place.name)?;
        let warnings = check(kind, before, &body, patch)?;
        Ok(Patched { body, warnings })
    }
}

impl Writing {
    /// A whole object of the version that is written in, as it is stored.
    fn stored(&self, body: Value) -> Value {
        match self.format.version {
            ShownAs::Stored => body,
            ShownAs::NewEvent => events::to_stored(body),
        }
    }
}

enum Tried {
    Done(Outcome),
    /// Somebody else wrote in between.
    Overtaken(registry::Error),
}

impl Tried {
    fn done(code: StatusCode, written: Written, warnings: Vec<String>) -> Tried {
        Tried::Done(Outcome {
            code,
            written,
            warnings,
        })
    }
}

fn read(form: Form, bytes: &[u8]) -> Result<(Value, Vec<String>), Refusal> {
    let unreadable = |what: String| Refusal::bad_request(format!("error decoding patch: {what}"));
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable("not UTF-8".to_owned()))?;
    let json = || json::parse_lenient(text, yaml::DEPTH_MAX);
    let in_line = |line: u64, what: String| unreadable(format!("line {line}: {what}"));
    if form != Form::Apply {
        return json().map_err(|(line, what)| in_line(line as u64, what));
    }
    // JSON first, for keys that stand twice; braces may be YAML's own, too.
    if text.trim_start().starts_with('{')
        && let Ok(read) = json()
    {
        return Ok(read);
    }
    let value = yaml::parse(text).map_err(|(line, what)| in_line(line, what))?;
    Ok((value, Vec::new()))
}

/// A patch is no precondition: another uid in it would change the object's.
fn check_uid(place: &Place, live: &Object, body: &Value) -> Result<(), Refusal> {
    let uid = metadata(body, "uid");
    if uid.is_empty() || *uid == live.metadata()["uid"] {
        return Ok(());
    }
    let why = format!("Invalid value: {uid:?}: field is immutable");
    let causes = [("metadata.uid".to_owned(), why)];
    Err(Refusal::invalid(place.kind, &place.name, &causes))
}

/// Types and unknown fields of what the patch gave; what was unknown before is not its fault.
fn check(
    kind: Kind,
    before: Option<&Value>,
    body: &Value,
    patch: &Patch,
) -> Result<Vec<String>, Refusal> {
    let unknown = fields::unknown(kind, body)
        .map_err(|what| Refusal::invalid_patch(&format!("Invalid value: {what}")))?;
    if patch.options.field_validation == FieldValidation::Ignore {
        return Ok(Vec::new());
    }
    let known_before = match before {
        Some(before) if !unknown.is_empty() => fields::unknown(kind, before).unwrap_or_default(),
        _ => Vec::new(),
    };
    let fresh = unknown
        .into_iter()
        .filter(|text| !known_before.contains(text));
    let duplicates = patch.duplicates.iter();
    let duplicates = duplicates.map(|path| format!("duplicate field \"{path}\""));
    let found: Vec<String> = fresh.chain(duplicates).collect();
    if patch.options.field_validation == FieldValidation::Strict && !found.is_empty() {
        let found = found.join(", ");
        let text = match patch.form {
            Form::Apply => {
                let text = format!("failed to create typed patch object: {found}");
                return Err(Refusal::bad_request(text));
            }
            _ => format!("Invalid value: strict decoding error: {found}"),
        };
        return Err(Refusal::invalid_patch(&text));
    }
    Ok(found)
}
