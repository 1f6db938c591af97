//! The subresources that are acts: binding and eviction.
//!
//! Source: Kubernetes pkg/registry/core/pod/storage/{storage,eviction}.go.

use http::StatusCode;
use serde_json::{Value, json};

use super::Writing;
use super::options::DeleteOptions;
use crate::apiserver::backend::{Write, WriteRequest};
use crate::apiserver::route::Place;
use crate::apiserver::status::{Refusal, json_response};
use crate::net::serve::{Request, Response};
use crate::object::{Key, Kind, conditions};
use crate::registry::{self, Precondition};

/// How often a condition is put on a pod that others write at the same time.
const TRIES_MAX: usize = 5;

impl Writing {
    /// `POST pods/NAME/binding`, or `bindings` with the pod's name inside: gives a pod that waits to
    /// a node.
    pub async fn bind(
        &self,
        namespace: &str,
        name: Option<&str>,
        request: Request,
    ) -> Result<Response, Refusal> {
        let options = self.options("CreateOptions")?;
        let binding = self.body(request).await?.value;
        check_kind(&binding, "Binding", &["v1"])?;
        let inside = binding["metadata"]["name"].as_str().unwrap_or_default();
        let name = match name {
            Some(name) if !inside.is_empty() && inside != name => {
                let text = "name in URL does not match name in Binding object";
                return Err(Refusal::bad_request(text));
            }
            Some(name) => name,
            None => inside,
        };
        let target = &binding["target"];
        let node = target["name"].as_str().unwrap_or_default();
        let kind = target["kind"].as_str().unwrap_or_default();
        if !matches!(kind, "" | "Node") || node.is_empty() {
            let (field, what) = match node {
                "" => ("target.name", "Required value".to_owned()),
                _ => (
                    "target.kind",
                    format!("Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\""),
                ),
            };
            return Err(Refusal::invalid_named(
                "Binding",
                name,
                &[(field.to_owned(), what)],
            ));
        }
        let place = Place {
            kind: Kind::Pod,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let actor = self.actor("binding", options.dry_run);
        let key = self.key(&place)?;
        let precondition = Precondition {
            resource_version: text(&binding["metadata"]["resourceVersion"]),
            uid: text(&binding["metadata"]["uid"]),
        };
        let write = Write::Update(json!({"target": {"name": node}}), precondition);
        self.ask(actor, key, write).await?;
        Ok(success(StatusCode::CREATED))
    }

    /// `POST pods/NAME/eviction`: a graceful deletion that says why. No disruption budgets are kept
    /// here, so nothing forbids it.
    pub async fn evict(&self, place: &Place, request: Request) -> Result<Response, Refusal> {
        let eviction = self.body(request).await?.value;
        check_kind(&eviction, "Eviction", &["policy/v1", "policy/v1beta1"])?;
        let named = eviction["metadata"]["name"].as_str().unwrap_or_default();
        if !named.is_empty() && named != place.name {
            let text = "name in URL does not match name in Eviction object";
            return Err(Refusal::bad_request(text));
        }
        let mut options = DeleteOptions::parse(&eviction["deleteOptions"], &self.query)?;
        let dry_run = options.dry_run || self.options("CreateOptions")?.dry_run;
        let key = self.key(place)?;
        let act = Write::Act(eviction);
        let actor = self.actor("eviction", dry_run);
        self.ask(actor, key.clone(), act).await?;
        let precondition = &mut options.deletion.precondition;
        self.mark_disrupted(&key, precondition, dry_run).await?;
        let actor = self.actor("eviction", dry_run);
        self.ask(actor, key, Write::Delete(options.deletion))
            .await?;
        Ok(success(StatusCode::CREATED))
    }

    /// Puts the condition `DisruptionTarget` on a pod that is about to be evicted. What the client
    /// demands of the pod holds for this write, and then for what it makes of the pod.
    async fn mark_disrupted(
        &self,
        key: &Key,
        precondition: &mut Precondition,
        dry_run: bool,
    ) -> Result<(), Refusal> {
        let mut left = TRIES_MAX;
        loop {
            let pod = self.shared.reader.get(key);
            let pod = pod.ok_or_else(|| Refusal::not_found(key.kind, &key.name))?;
            if pod.source != crate::object::Source::Api {
                return Err(super::refusals::not_owner(&pod));
            }
            if pod.is_deleting() || dry_run {
                return Ok(());
            }
            let now = self
                .shared
                .clock
                .wall()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string();
            let mut body = pod.body.clone();
            let condition = json!({
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
                "lastTransitionTime": now,
            });
            conditions::put(&mut body["status"], condition);
            let request = WriteRequest {
                actor: self.actor("status", false),
                key: key.clone(),
                write: Write::Update(body, precondition.clone()),
            };
            left -= 1;
            let asks = precondition.resource_version.as_mut();
            match (self.ask_registry(request).await?, asks) {
                (Ok(marked), Some(version)) => {
                    *version = marked.object.resource_version.to_string();
                    return Ok(());
                }
                (Ok(_), None) => return Ok(()),
                (Err(registry::Error::Conflict { .. }), None) if left > 0 => {}
                (Err(error), _) => {
                    return Err(super::refusals::refusal(error, &self.shared.reader));
                }
            }
        }
    }
}

/// Errors: 400 for a body that says it is something else.
fn check_kind(body: &Value, kind: &str, versions: &[&str]) -> Result<(), Refusal> {
    let named = |field: &str| body[field].as_str().unwrap_or_default();
    let (given, version) = (named("kind"), named("apiVersion"));
    if !given.is_empty() && given != kind {
        let text = format!("{given} in version {version:?} cannot be handled as a {kind}");
        return Err(Refusal::bad_request(text));
    }
    if !version.is_empty() && !versions.contains(&version) {
        let text = format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            versions[0]
        );
        return Err(Refusal::bad_request(text));
    }
    Ok(())
}

/// `None` for what is empty.
fn text(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned)
}

fn success(code: StatusCode) -> Response {
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": code.as_u16(),
    });
    json_response(code, &status)
}
