//! Delete one object, or all that selectors pick.

use http::StatusCode;
use serde_json::json;

use super::body;
use super::options::DeleteOptions;
use super::{Outcome, Writing};
use crate::apiserver::backend::{Write, Written};
use crate::apiserver::format;
use crate::apiserver::list_options::ListOptions;
use crate::apiserver::route::Place;
use crate::apiserver::status::{Refusal, about, json_response};
use crate::apiserver::view;
use crate::net::serve::{Request, Response};
use crate::object::{Key, Kind, Origin};

impl Writing {
    /// `DELETE` of an object: the object while it is still there (of some kinds also after), else a
    /// Status.
    pub async fn delete(&self, place: &Place, request: Request) -> Result<Response, Refusal> {
        let options = self.delete_options(request).await?;
        let key = self.key(place)?;
        let actor = self.actor("", options.dry_run);
        let written = self
            .ask(actor, key, Write::Delete(options.deletion))
            .await?;
        // Only who asks for dependants in the older way is told that it is not over.
        let code = match options.orphan_dependents {
            Some(false) if !written.gone => StatusCode::ACCEPTED,
            _ => StatusCode::OK,
        };
        Ok(self.deleted(place.kind, code, written))
    }

    fn deleted(&self, kind: Kind, code: StatusCode, written: Written) -> Response {
        if written.gone && !kind.returned_when_deleted() {
            let object = &written.object;
            let mut details = about(kind, &object.key.name);
            details["uid"] = json!(object.uid());
            let status = json!({
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": details,
            });
            return json_response(StatusCode::OK, &status);
        }
        let outcome = Outcome {
            code,
            written,
            warnings: Vec::new(),
        };
        self.respond(kind, outcome)
    }

    /// `DELETE` of a collection: what selectors pick, one after the other; the list of it as the
    /// answer. Objects that are not the API's to delete are left out.
    pub async fn delete_collection(
        &self,
        kind: Kind,
        namespace: Option<String>,
        request: Request,
    ) -> Result<Response, Refusal> {
        if kind == Kind::Namespace || kind.namespaced() && namespace.is_none() {
            return Err(Refusal::method_not_allowed());
        }
        let list = ListOptions::parse(kind, self.format.version, &self.query)?;
        let options = self.delete_options(request).await?;
        let (objects, version) = view::list(&self.shared.reader, kind, namespace.as_deref());
        let local = |key: &Key| key.origin == Origin::Local;
        let keys: Vec<Key> = objects
            .iter()
            .filter(|object| local(object.key()) && list.selector.selects(object))
            .map(|object| object.key().clone())
            .take(list.limit.unwrap_or(usize::MAX))
            .collect();
        let version_shown = self.format.version;
        let mut items = Vec::new();
        for key in keys {
            let actor = self.actor("", options.dry_run);
            let write = Write::Delete(options.deletion.clone());
            match self.ask(actor, key, write).await {
                Ok(written) => {
                    let shown = version_shown.show(&written.object.body);
                    items.push(format::without_type(shown));
                }
                // Gone meanwhile, or a manifest's.
                Err(refusal) if refusal.code == StatusCode::NOT_FOUND => {}
                Err(refusal) if refusal.code == StatusCode::FORBIDDEN => {}
                Err(refusal) => return Err(refusal),
            }
        }
        let deleted = json!({
            "kind": format!("{kind}List"),
            "apiVersion": version_shown.api_version(kind),
            "metadata": {"resourceVersion": version.to_string()},
            "items": items,
        });
        Ok(json_response(StatusCode::OK, &deleted))
    }

    async fn delete_options(&self, request: Request) -> Result<DeleteOptions, Refusal> {
        let media_type = body::media_type(request.headers());
        let whole = body::whole(request, &self.shared).await?;
        let sent = match whole.bytes.is_empty() {
            true => body::Sent::default(),
            false => body::value(&media_type, &whole.bytes)?,
        };
        DeleteOptions::parse(&sent.value, &self.query)
    }
}
