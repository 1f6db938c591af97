//! Secrets of type `kubernetes.io/service-account-token`: token, CA and namespace are filled in, the
//! account lists them, and they go with it.
//!
//! ```text
//!  Secret ── names ──► account there ──► filled, listed in the account's `secrets`
//!                      account gone, or another of that name ──► deleted
//!  Secret gone ──► no longer listed
//! ```
//! None is made by itself: that ended upstream with 1.24. Those of manifests are filled too, and go
//! with their file only; an account of a manifest lists what its file says. Source: Kubernetes
//! pkg/controller/serviceaccount (tokens_controller.go); listing in `secrets` is what its early
//! versions did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Controllers, Outcome, Patience, actor, either};
use crate::object::token::Issuer;
use crate::object::{Key, Kind, Object, Origin, Source};
use crate::registry::{ChangeType, Deletion, PackedChange, Precondition};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// What is known of token Secrets, so that no change needs a look at all Secrets.
#[derive(Default)]
struct Known {
    /// Secret to account.
    secrets: BTreeMap<Key, Key>,
    /// Accounts to be looked at, with names of Secrets that they had.
    due: BTreeMap<Key, BTreeSet<String>>,
}

/// Keeps them, for ever.
pub async fn keep(controllers: Controllers) {
    let reader = controllers.reader();
    let mut patience = Patience::default();
    loop {
        let version = reader.version();
        let Ok(mut cursors) = reader.watch_all(&[Kind::Secret, Kind::ServiceAccount], version)
        else {
            continue;
        };
        let mut known = Known::default();
        for secret in reader.list_packed(Kind::Secret, None).0 {
            known.note(&secret.unpack());
        }
        loop {
            let renewed = controllers.trust.changed.listen();
            let authority = controllers.trust.certificate();
            let outcome = known.settle(&controllers).await;
            let mut changes = Ok(Vec::new());
            let change = async { changes = cursors.next().await };
            let waited = either(change, renewed);
            patience.wait(&*controllers.clock, outcome, waited).await;
            if controllers.trust.certificate() != authority {
                known.all_due();
            }
            let Ok(changes) = changes else {
                // Some were missed.
                break;
            };
            for change in &changes {
                known.changed(change);
            }
        }
    }
}

impl Known {
    fn changed(&mut self, change: &PackedChange) {
        let key = change.object.key();
        if key.origin != Origin::Local {
            return;
        }
        if key.kind == Kind::ServiceAccount {
            self.due.entry(key.clone()).or_default();
            return;
        }
        match change.change {
            ChangeType::Deleted => {
                if let Some(account) = self.secrets.remove(key) {
                    let gone = self.due.entry(account).or_default();
                    gone.insert(key.name.clone());
                }
            }
            ChangeType::Added | ChangeType::Modified => self.note(&change.object.unpack()),
        }
    }

    fn note(&mut self, secret: &Object) {
        let key = &secret.key;
        let name = secret.annotation(ACCOUNT_NAME).unwrap_or_default();
        if key.origin != Origin::Local || secret.body["type"] != TYPE || name.is_empty() {
            return;
        }
        let account = Key::local(Kind::ServiceAccount, &key.namespace, name);
        self.due.entry(account.clone()).or_default();
        self.secrets.insert(key.clone(), account);
    }

    fn all_due(&mut self) {
        for account in self.secrets.values() {
            self.due.entry(account.clone()).or_default();
        }
    }

    /// Looks at every account that is due; those that fail stay so.
    async fn settle(&mut self, controllers: &Controllers) -> Outcome {
        let mut outcome = Outcome::Settled;
        for (account, gone) in std::mem::take(&mut self.due) {
            let secrets = self.secrets.iter().filter(|(_, of)| **of == account);
            let secrets: Vec<Key> = secrets.map(|(key, _)| key.clone()).collect();
            let done = settle(controllers, &account, &secrets, &gone).await;
            if done == Outcome::Failed {
                self.due.entry(account).or_default().extend(gone);
            }
            outcome = outcome.and(done);
        }
        outcome
    }
}

async fn settle(
    controllers: &Controllers,
    account: &Key,
    secrets: &[Key],
    gone: &BTreeSet<String>,
) -> Outcome {
    let reader = controllers.reader();
    let account = reader.get(account).filter(|account| !account.is_deleting());
    let mut outcome = Outcome::Settled;
    let mut listed = Vec::new();
    for key in secrets {
        let Some(secret) = reader.get(key).filter(|secret| !secret.is_deleting()) else {
            continue;
        };
        let made_for = secret.annotation(ACCOUNT_UID).unwrap_or_default();
        let ours = account
            .as_ref()
            .filter(|account| made_for.is_empty() || made_for == account.uid());
        let done = match ours {
            None => end(controllers, &secret).await,
            Some(account) => {
                listed.push(key.name.clone());
                fill(controllers, account, &secret).await
            }
        };
        outcome = outcome.and(done);
    }
    match account {
        Some(account) => outcome.and(list(controllers, &account, &listed, gone).await),
        None => outcome,
    }
}

async fn end(controllers: &Controllers, secret: &Object) -> Outcome {
    if secret.source != Source::Api {
        return Outcome::Settled;
    }
    let deletion = Deletion {
        precondition: Precondition {
            uid: Some(secret.uid().to_owned()),
            ..Precondition::default()
        },
        ..Deletion::default()
    };
    let key = secret.key.clone();
    Outcome::of(controllers.registry.delete(actor(), key, deletion).await)
}

async fn fill(controllers: &Controllers, account: &Arc<Object>, secret: &Object) -> Outcome {
    let writer = match secret.source {
        Source::Api => actor(),
        // Only who owns it may write it.
        source @ (Source::File | Source::Http) => source.into(),
        Source::Remote | Source::Node => return Outcome::Settled,
    };
    let authority = controllers.trust.certificate();
    match filled(&controllers.issuer, account, secret, &authority) {
        Err(error) => {
            log::error!("{}: {error}", secret.key);
            Outcome::Failed
        }
        Ok(None) => Outcome::Settled,
        Ok(Some(body)) => {
            let key = secret.key.clone();
            let registry = &controllers.registry;
            Outcome::of(
                registry
                    .update(writer, key, body, Precondition::default())
                    .await,
            )
        }
    }
}

/// The Secret with what it should hold; `None` if it does. Errors: no token could be made.
fn filled(
    issuer: &Issuer,
    account: &Object,
    secret: &Object,
    authority: &str,
) -> Result<Option<Value>, String> {
    let mut body = secret.body.clone();
    body["metadata"]["annotations"][ACCOUNT_UID] = json!(account.uid());
    if !body["data"].is_object() {
        body["data"] = json!({});
    }
    let data = &mut body["data"];
    data["ca.crt"] = json!(STANDARD.encode(authority));
    data["namespace"] = json!(STANDARD.encode(&secret.key.namespace));
    if data["token"].as_str().unwrap_or_default().is_empty() {
        let token = issuer.mint_legacy(account, &secret.key.name)?;
        data["token"] = json!(STANDARD.encode(token));
    }
    Ok((body != secret.body).then_some(body))
}

async fn list(
    controllers: &Controllers,
    account: &Object,
    names: &[String],
    gone: &BTreeSet<String>,
) -> Outcome {
    if account.source != Source::Api {
        return Outcome::Settled;
    }
    let Some(body) = listing(account, names, gone) else {
        return Outcome::Settled;
    };
    let key = account.key.clone();
    let registry = &controllers.registry;
    let updated = registry.update(actor(), key, body, Precondition::default());
    Outcome::of(updated.await)
}

/// The account with these Secrets listed and those gone not; `None` if nothing differs.
fn listing(account: &Object, names: &[String], gone: &BTreeSet<String>) -> Option<Value> {
    let before = account.body["secrets"].as_array();
    let mut secrets = before.cloned().unwrap_or_default();
    let name = |entry: &Value| entry["name"].as_str().unwrap_or_default().to_owned();
    secrets.retain(|entry| names.contains(&name(entry)) || !gone.contains(&name(entry)));
    for wanted in names {
        if !secrets.iter().any(|entry| name(entry) == *wanted) {
            secrets.push(json!({"name": wanted}));
        }
    }
    if before.map_or(0, Vec::len) == secrets.len() && before.is_none_or(|b| *b == secrets) {
        return None;
    }
    let mut body = account.body.clone();
    match (secrets.is_empty(), body.as_object_mut()) {
        (true, Some(fields)) => {
            fields.remove("secrets");
        }
        _ => body["secrets"] = Value::Array(secrets),
    }
    Some(body)
}
