//! The status of quotas: what is used, for people to read. No decision is made on it.

use serde_json::{Map, Value, json};

use super::usage::{Amounts, COUNTED, is_about, is_in_scope, usage};
use crate::object::gather::Gather;
use crate::object::{Kind, Quantity, resources};
use crate::registry::{Registry, View};

/// Keeps the status of every quota true, for ever. Without a quota it wakes for quotas only.
pub async fn keep_statuses(registry: Registry) {
    let reader = registry.reader();
    loop {
        // Read first: what changes after it wakes the wait below.
        let version = reader.version();
        let (quotas, _) = reader.list(Kind::ResourceQuota, None);
        for quota in &quotas {
            let status = status(&reader, &quota.key.namespace, &quota.body);
            if quota.body.get("status") != Some(&status) {
                registry.update_status(&quota.key, quota.uid(), status);
            }
        }
        match quotas.is_empty() {
            true => reader.changed(&[Kind::ResourceQuota], version).await,
            false => reader.changed(&COUNTED, version).await,
        }
    }
}

/// `{hard, used}`, each with the names of the quota.
pub fn status(view: &dyn View, namespace: &str, quota: &Value) -> Value {
    let hard = resources::amounts(&quota["spec"]["hard"]);
    let mut used: Amounts = hard
        .keys()
        .map(|name| (name.clone(), Quantity::ZERO))
        .gathered();
    for kind in COUNTED {
        if !hard.keys().any(|name| is_about(kind, name)) {
            continue;
        }
        let mut sum = Amounts::new();
        for object in view.list(kind, Some(namespace)) {
            if is_in_scope(quota, kind, &object.body) {
                resources::add(&mut sum, usage(kind, &object.body));
            }
        }
        sum.retain(|name, _| hard.contains_key(name));
        used.extend(sum);
    }
    let texts = |amounts: &Amounts| -> Map<String, Value> {
        let each = amounts.iter();
        each.map(|(name, amount)| (name.clone(), json!(amount.to_string())))
            .gathered()
    };
    json!({"hard": texts(&hard), "used": texts(&used)})
}
