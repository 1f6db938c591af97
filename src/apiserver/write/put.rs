//! Create and replace: POST and PUT of whole objects.

use http::StatusCode;

use super::fields;
use super::options::WriteOptions;
use super::{Outcome, Writing, metadata};
use crate::apiserver::backend::{Write, Written};
use crate::apiserver::route::Place;
use crate::apiserver::status::Refusal;
use crate::net::serve::{Request, Response};
use crate::object::{self, Key, Kind, Origin};
use crate::registry::Precondition;
use serde_json::Value;

impl Writing {
    /// `POST` to a collection: 201 and the object.
    pub async fn create(
        &self,
        kind: Kind,
        namespace: Option<String>,
        request: Request,
    ) -> Result<Response, Refusal> {
        let namespace = match (kind.namespaced(), namespace) {
            (true, None) => return Err(Refusal::method_not_allowed()),
            (_, namespace) => namespace.unwrap_or_default(),
        };
        let options = self.options("CreateOptions")?;
        let sent = self.body(request).await?;
        let warnings = fields::check(kind, &sent, options.field_validation)?;
        let mut body = sent.value;
        fields::settle_namespace(&mut body, &namespace)?;
        if !metadata(&body, "resourceVersion").is_empty() {
            let text = "resourceVersion should not be set on objects to be created";
            return Err(Refusal::bad_request(text));
        }
        self.check_version_rules(metadata(&body, "name"), None, &body)?;
        let key = Key::local(kind, &namespace, metadata(&body, "name"));
        let manager = Some(options.manager(&self.headers));
        let written = self.make(key, body, &options, manager).await?;
        let outcome = Outcome {
            code: StatusCode::CREATED,
            written,
            warnings,
        };
        Ok(self.respond(kind, outcome))
    }

    /// Asks for a new object. Errors: 409 also where a remote object is shown under the name.
    pub async fn make(
        &self,
        key: Key,
        body: Value,
        options: &WriteOptions,
        manager: Option<String>,
    ) -> Result<Written, Refusal> {
        let remote = Key {
            origin: Origin::Remote,
            ..key.clone()
        };
        if self.shared.reader.contains(&remote) {
            return Err(Refusal::already_exists(key.kind, &key.name, false));
        }
        let mut actor = self.actor("", options.dry_run);
        actor.manager = manager;
        let generated = !metadata(&body, "generateName").is_empty();
        let remarks = match key.kind {
            Kind::Pod => object::remarks(&body),
            _ => Vec::new(),
        };
        let made = self.ask(actor, key, Write::Create(body)).await;
        let mut written = made.map_err(|refusal| match generated {
            true => refusal.of_generated_name(),
            false => refusal,
        })?;
        written.remarks.extend(remarks);
        Ok(written)
    }

    /// `PUT` of an object or of a part of it: 200 and the object, 201 if it was made.
    pub async fn replace(
        &self,
        place: &Place,
        subresource: &'static str,
        request: Request,
    ) -> Result<Response, Refusal> {
        let kind = place.kind;
        let options = self.options("UpdateOptions")?;
        let sent = self.body(request).await?;
        let warnings = fields::check(kind, &sent, options.field_validation)?;
        let mut body = sent.value;
        fields::settle_namespace(&mut body, &place.namespace)?;
        fields::check_name(&body, &place.name)?;
        let key = self.key(place)?;
        let manager = Some(options.manager(&self.headers));
        let before = self.shared.reader.get(&key);
        let before = before.as_ref().map(|object| &object.body);
        self.check_version_rules(&place.name, before, &body)?;
        let creates = kind.created_by_update() && subresource.is_empty();
        let (code, written) = if before.is_none() && creates {
            self.check_creates()?;
            let uid = metadata(&body, "uid");
            if !uid.is_empty() {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: "
                );
                return Err(Refusal::conflict(kind, &place.name, &why));
            }
            let made = self.make(key, body, &options, manager).await?;
            (StatusCode::CREATED, made)
        } else {
            let asks = !metadata(&body, "resourceVersion").is_empty();
            if before.is_some() && !asks && !kind.updated_unconditionally() {
                return Err(Refusal::version_required(kind, &place.name));
            }
            let mut actor = self.actor(subresource, options.dry_run);
            actor.manager = manager;
            let write = Write::Update(body, Precondition::default());
            (StatusCode::OK, self.ask(actor, key, write).await?)
        };
        let outcome = Outcome {
            code,
            written,
            warnings,
        };
        Ok(self.respond(kind, outcome))
    }
}
