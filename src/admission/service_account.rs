//! ServiceAccount: every pod of the API acts as an account, and gets what belongs to that account.
//!
//! ```text
//!  no account named ─► "default"
//!  automount (the pod's word, else the account's, else yes) ─► volume kube-api-access-xxxxx in
//!      each container that mounts nothing at its place
//!  no pull secrets named ─► the account's
//!  annotation kubernetes.io/enforce-mountable-secrets ─► only the account's secrets
//! ```
//! Pods of manifests name no account that must exist, and upstream gives them none: they get the
//! volume only if they ask for it with `automountServiceAccountToken: true`, and nothing else. The
//! node makes the account `default` of each namespace itself; where it has not come to it yet the
//! account is taken for one without wishes. Source: Kubernetes `plugin/pkg/admission/serviceaccount`.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::pod::{self, items, push, text};
use crate::object::{Key, Kind, Object, references};
use crate::registry::{Admit, Attributes, Denial, Operation};
use crate::world::Random;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";
/// Upstream: `WarnOnlyBoundTokenExpirationSeconds`, 1 h and 7 s that mark it.
const TOKEN_LIFE_S: i64 = 3607;
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
/// Letters and digits of generated names: no vowels, no look-alikes.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

pub struct ServiceAccount {
    random: Rc<dyn Random>,
}

impl ServiceAccount {
    pub fn new(random: Rc<dyn Random>) -> ServiceAccount {
        ServiceAccount { random }
    }

    /// Different for each pod of the API; for one of a manifest the same each time it is read.
    fn suffix(&self, attributes: &Attributes<'_>) -> String {
        let mut bytes = [0u8; 5];
        if attributes.is_of_manifest() {
            for (n, byte) in attributes.key.name.bytes().enumerate() {
                let place = &mut bytes[n % 5];
                *place = place.wrapping_mul(31).wrapping_add(byte);
            }
        } else {
            self.random.fill(&mut bytes);
        }
        let letter = |byte: u8| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]);
        bytes.into_iter().map(letter).collect()
    }
}

impl Admit for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Denial> {
        let creates = attributes.is_of_pod() && attributes.operation == Operation::Create;
        if !creates || !object["spec"].is_object() {
            return Ok(());
        }
        let is_mirror = pod::is_mirror(object);
        let spec = &mut object["spec"];
        if attributes.is_of_manifest() {
            if spec["automountServiceAccountToken"] == true {
                mount(spec, || self.suffix(attributes));
            }
            return Ok(());
        }
        if is_mirror {
            return Ok(());
        }
        if text(spec, "serviceAccountName").is_empty() {
            spec["serviceAccountName"] = json!("default");
        }
        // The older name of the same field follows.
        spec["serviceAccount"] = spec["serviceAccountName"].clone();
        let account = account(attributes, text(spec, "serviceAccountName"))?;
        let account = account
            .as_ref()
            .map_or(&Value::Null, |account| &account.body);
        let wishes = [
            &spec["automountServiceAccountToken"],
            &account["automountServiceAccountToken"],
        ];
        if wishes.into_iter().find_map(Value::as_bool).unwrap_or(true) {
            mount(spec, || self.suffix(attributes));
        }
        if items(spec, "imagePullSecrets").next().is_none() {
            let names = items(account, "imagePullSecrets").map(|secret| text(secret, "name"));
            let secrets: Vec<Value> = names.map(|name| json!({"name": name})).collect();
            if !secrets.is_empty() {
                spec["imagePullSecrets"] = Value::Array(secrets);
            }
        }
        Ok(())
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        let subresource = attributes.actor.subresource;
        if attributes.key.kind != Kind::Pod || attributes.is_of_manifest() {
            return Ok(());
        }
        match (attributes.operation, subresource) {
            (Operation::Create, "") if pod::is_mirror(object) => mirror(&object["spec"]),
            (Operation::Create, "") => {
                let account = named_account(attributes, object)?;
                mountable(account.as_deref(), &object["spec"])
            }
            (Operation::Update, "ephemeralcontainers") => {
                let account = named_account(attributes, object)?;
                let Some(account) = account.filter(|account| enforces(account)) else {
                    return Ok(());
                };
                environment(
                    &account,
                    &object["spec"],
                    "ephemeralContainers",
                    "ephemeral container",
                )
            }
            _ => Ok(()),
        }
    }
}

/// `None` for the account `default` that is not there yet.
fn account(attributes: &Attributes<'_>, name: &str) -> Result<Option<Arc<Object>>, Denial> {
    let namespace = &attributes.key.namespace;
    let key = Key::local(Kind::ServiceAccount, namespace, name);
    match attributes.view.get(&key) {
        Some(account) => Ok(Some(account)),
        None if name == "default" => Ok(None),
        None => Err(Denial::forbidden(format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        ))),
    }
}

fn named_account(
    attributes: &Attributes<'_>,
    object: &Value,
) -> Result<Option<Arc<Object>>, Denial> {
    match text(&object["spec"], "serviceAccountName") {
        "" => Err(Denial::forbidden(format!(
            "no service account specified for pod {}/{}",
            attributes.key.namespace, attributes.key.name
        ))),
        name => account(attributes, name),
    }
}

fn mirror(spec: &Value) -> Result<(), Denial> {
    let projected =
        items(spec, "volumes").flat_map(|volume| items(&volume["projected"], "sources"));
    let mut tokens = projected.filter(|source| source["serviceAccountToken"].is_object());
    if !text(spec, "serviceAccountName").is_empty() {
        let why = "a mirror pod may not reference service accounts";
        return Err(Denial::forbidden(why));
    }
    if references::secrets(spec).next().is_some() {
        return Err(Denial::forbidden("a mirror pod may not reference secrets"));
    }
    if tokens.next().is_some() {
        let why = "a mirror pod may not use ServiceAccountToken volume projections";
        return Err(Denial::forbidden(why));
    }
    Ok(())
}

/// Adds the volume and its mounts where nothing is mounted already.
fn mount(spec: &mut Value, suffix: impl FnOnce() -> String) {
    let present = items(spec, "volumes").map(|volume| text(volume, "name"));
    let present = present
        .filter(|name| name.starts_with(VOLUME))
        .map(str::to_owned)
        .next();
    let (name, new) = match present {
        Some(name) => (name, false),
        None => (format!("{VOLUME}{}", suffix()), true),
    };
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in pod::items_mut(spec, list) {
            let mounts = container.get("volumeMounts").and_then(Value::as_array);
            let mut mounts = mounts.into_iter().flatten();
            if mounts.any(|mount| text(mount, "mountPath") == MOUNT_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
            push(container, "volumeMounts", mount);
            needed = true;
        }
    }
    if let (true, true, Some(spec)) = (new, needed, spec.as_object_mut()) {
        push(spec, "volumes", volume(&name));
    }
}

fn volume(name: &str) -> Value {
    let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFE_S, "path": "token"}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
            ],
        },
    })
}

fn enforces(account: &Object) -> bool {
    let value = account.annotation(ENFORCE).unwrap_or_default();
    matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")
}

/// Whether the pod takes only what the account lists.
fn mountable(account: Option<&Object>, spec: &Value) -> Result<(), Denial> {
    let Some(account) = account.filter(|account| enforces(account)) else {
        return Ok(());
    };
    let name = &account.key.name;
    let whole = items(spec, "volumes").filter(|volume| volume["secret"].is_object());
    let whole = whole.map(|volume| text(&volume["secret"], "secretName"));
    // Upstream looks past these, and whoever knows it gets around the annotation.
    let sources = items(spec, "volumes").flat_map(|volume| items(&volume["projected"], "sources"));
    let sources = sources.filter(|source| source["secret"].is_object());
    let sources = sources.map(|source| text(&source["secret"], "name"));
    for secret in whole.chain(sources) {
        if !lists(account, "secrets", secret) {
            return Err(Denial::forbidden(format!(
                "volume with secret.secretName={secret:?} is not allowed because service account \
                 {name} does not reference that secret"
            )));
        }
    }
    environment(account, spec, "initContainers", "init container")?;
    environment(account, spec, "containers", "container")?;
    for (n, secret) in items(spec, "imagePullSecrets").enumerate() {
        let secret = text(secret, "name");
        if !lists(account, "imagePullSecrets", secret) {
            return Err(Denial::forbidden(format!(
                "imagePullSecrets[{n}].name={secret:?} is not allowed because service account {name} \
                 does not reference that imagePullSecret"
            )));
        }
    }
    Ok(())
}

fn environment(account: &Object, spec: &Value, list: &str, kind: &str) -> Result<(), Denial> {
    let refused = |container: &Value, what: &str, secret: &str| {
        Denial::forbidden(format!(
            "{kind} {} with {what} referencing secret.secretName={secret:?} is not allowed because \
             service account {} does not reference that secret",
            text(container, "name"),
            account.key.name
        ))
    };
    for container in items(spec, list) {
        for env in items(container, "env") {
            let from = &env["valueFrom"]["secretKeyRef"];
            let secret = text(from, "name");
            if from.is_object() && !lists(account, "secrets", secret) {
                let what = format!("envVar {}", text(env, "name"));
                return Err(refused(container, &what, secret));
            }
        }
        for env in items(container, "envFrom") {
            let secret = text(&env["secretRef"], "name");
            if env["secretRef"].is_object() && !lists(account, "secrets", secret) {
                return Err(refused(container, "envFrom", secret));
            }
        }
    }
    Ok(())
}

fn lists(account: &Object, list: &str, secret: &str) -> bool {
    items(&account.body, list).any(|listed| text(listed, "name") == secret)
}
