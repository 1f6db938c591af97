//! Objects that the node makes by itself, and makes again whenever they are not there: built-in
//! namespaces and what every namespace has.

use serde_json::{Value, json};

use super::Error;
use super::admission::Operation;
use super::commit::Visible;
use super::desk::same_but_for_versions;
use super::published::Step;
use super::write::{Precondition, Registry};
use crate::object::{Key, Source};
use crate::world::LocalFuture;

impl Registry {
    /// Publishes an object at once and stores it behind: a disk that takes nothing must not keep it
    /// from being seen. It belongs to the API, so users may change it; it passes no admission. A body
    /// without resourceVersion is a new object, one with it replaces that version.
    /// Errors: `AlreadyExists`, `NotFound`, `Conflict`, `NotOwner`, `Invalid`.
    pub fn provide(&self, key: Key, mut body: Value) -> LocalFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let desk = &self.desk;
            desk.committer.settled(|busy| busy == &key).await;
            let current = self.current(&key);
            let expected = Precondition::of(&body);
            match (&current, &expected.resource_version) {
                (None, None) => {}
                (None, Some(_)) => return Err(Error::NotFound(key)),
                (Some(_), None) => return Err(Error::AlreadyExists(key)),
                (Some(current), Some(_)) if current.source != Source::Api => {
                    let owner = current.source;
                    return Err(Error::NotOwner { key, owner });
                }
                (Some(current), Some(_)) => expected.check(current)?,
            }
            let operation = match current {
                Some(_) => Operation::Update,
                None => Operation::Create,
            };
            let current = current.as_deref();
            body["metadata"]["name"] = json!(key.name);
            if key.kind.namespaced() {
                body["metadata"]["namespace"] = json!(key.namespace);
            }
            desk.admit(operation, &Source::Node.into(), &key, current, &mut body)?;
            let object = desk.complete(Source::Api, key, None, current, body)?;
            if current.is_some_and(|now| same_but_for_versions(&now.body, &object.body)) {
                return Ok(());
            }
            let steps = vec![Step::Put(Box::new(object))];
            // Goes its way whether or not the answer is waited for.
            drop(desk.committer.submit(Visible::AtOnce, steps));
            Ok(())
        })
    }
}
