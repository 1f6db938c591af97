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
use crate::object::{Key, Kind};
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
        let write = Write::Update(json!({"target": {"name": node}}), Precondition::default());
        self.ask(actor, key, write).await?;
        Ok(success(StatusCode::CREATED))
    }

    /// `POST pods/NAME/eviction`: a graceful deletion that says why. No disruption budgets are kept
    /// here, so nothing forbids it.
    pub async fn evict(&self, place: &Place, request: Request) -> Result<Response, Refusal> {
        let eviction = self.body(request).await?.value;
        let named = eviction["metadata"]["name"].as_str().unwrap_or_default();
        if !named.is_empty() && named != place.name {
            let text = "name in URL does not match name in Eviction object";
            return Err(Refusal::bad_request(text));
        }
        let options = DeleteOptions::parse(&eviction["deleteOptions"], &self.query)?;
        let dry_run = options.dry_run || self.options("CreateOptions")?.dry_run;
        let key = self.key(place)?;
        let act = Write::Act(eviction);
        let actor = self.actor("eviction", dry_run);
        self.ask(actor, key.clone(), act).await?;
        self.mark_disrupted(&key, dry_run).await?;
        let actor = self.actor("eviction", dry_run);
        self.ask(actor, key, Write::Delete(options.deletion))
            .await?;
        Ok(success(StatusCode::CREATED))
    }

    /// Puts the condition `DisruptionTarget` on a pod that is about to be evicted.
    async fn mark_disrupted(&self, key: &Key, dry_run: bool) -> Result<(), Refusal> {
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
            put_condition(&mut body, condition);
            let request = WriteRequest {
                actor: self.actor("status", false),
                key: key.clone(),
                write: Write::Update(body, Precondition::default()),
            };
            left -= 1;
            match self.ask_registry(request).await? {
                Ok(_) => return Ok(()),
                Err(registry::Error::Conflict { .. }) if left > 0 => {}
                Err(error) => return Err(super::refusals::refusal(error, &self.shared.reader)),
            }
        }
    }
}

fn put_condition(pod: &mut Value, condition: Value) {
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|other| other["type"] != condition["type"]);
        conditions.push(condition);
    }
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
