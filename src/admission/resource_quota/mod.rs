//! ResourceQuota: what a namespace may have in all.
//!
//! ```text
//!  used = what is published in the namespace + what was admitted and is on its way to the disk
//!  used + requested > hard ─► refused
//! ```
//! Nothing is charged and given back: `used` is counted anew for each write in a namespace that has
//! a quota, so it cannot drift; and two writes cannot pass on the same free place, since the one
//! thread that admits remembers what it let through until that can be seen. The status that users
//! read is written by [`keep_statuses`]. Source: Kubernetes
//! `apiserver/pkg/admission/plugin/resourcequota/controller.go`.

mod status;
#[cfg(test)]
mod tests;
mod usage;

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::Value;

pub use self::status::keep_statuses;
use self::usage::{Amounts, COUNTED, is_about, is_in_scope, unsaid, usage};
use super::pod::text;
use crate::object::{Key, Kind, Quantity, resources};
use crate::registry::{Admit, Attributes, Denial, Operation, View};

#[derive(Default)]
pub struct ResourceQuota {
    /// Let through, and maybe not to be seen yet.
    pending: RefCell<BTreeMap<Key, Value>>,
}

impl Admit for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        if !is_charged(attributes, object) {
            return Ok(());
        }
        let key = attributes.key;
        let quotas = attributes
            .view
            .list(Kind::ResourceQuota, Some(&key.namespace));
        if quotas.is_empty() {
            return Ok(());
        }
        self.pending
            .borrow_mut()
            .retain(|key, _| attributes.view.in_flight(key));
        for quota in &quotas {
            let charged = Charged {
                quota: &quota.body,
                kind: key.kind,
                pending: &self.pending.borrow(),
                view: attributes.view,
            };
            charged.check(attributes, object)?;
        }
        if !attributes.actor.dry_run {
            self.pending
                .borrow_mut()
                .insert(key.clone(), object.clone());
        }
        Ok(())
    }
}

/// Whether the write can change what its namespace uses.
fn is_charged(attributes: &Attributes<'_>, object: &Value) -> bool {
    let key = attributes.key;
    if key.namespace.is_empty() || !COUNTED.contains(&key.kind) {
        return false;
    }
    let ends = |object: &Value| {
        let seconds = object["spec"]["activeDeadlineSeconds"].as_i64();
        seconds.is_some_and(|seconds| seconds >= 0)
    };
    match (attributes.operation, attributes.actor.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "") if key.kind == Kind::Pod => attributes
            .current
            .is_some_and(|now| ends(&now.body) != ends(object)),
        (Operation::Update, "") => key.kind == Kind::Service,
        (Operation::Update, "resize") => key.kind == Kind::Pod,
        _ => false,
    }
}

/// One quota and one write.
struct Charged<'a> {
    quota: &'a Value,
    kind: Kind,
    pending: &'a BTreeMap<Key, Value>,
    view: &'a dyn View,
}

impl Charged<'_> {
    fn check(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Denial> {
        let mut hard = resources::amounts(&self.quota["spec"]["hard"]);
        hard.retain(|name, _| is_about(self.kind, name));
        if hard.is_empty() || !is_in_scope(self.quota, self.kind, object) {
            return Ok(());
        }
        let name = text(&self.quota["metadata"], "name");
        if self.kind == Kind::Pod
            && let Some(missing) = unsaid(&hard, object)
        {
            return Err(Denial::forbidden(format!(
                "failed quota: {name}: must specify {missing}"
            )));
        }
        let requested = self.requested(attributes, object, &hard)?;
        if requested.is_empty() {
            return Ok(());
        }
        let used = self.used(&attributes.key.namespace, &hard);
        let of = |amounts: &Amounts, name: &str| amounts.get(name).copied().unwrap_or_default();
        let exceeded = requested
            .iter()
            .filter(|(name, amount)| of(&used, name).plus(**amount) > of(&hard, name));
        let exceeded: Vec<&String> = exceeded.map(|(name, _)| name).collect();
        if exceeded.is_empty() {
            return Ok(());
        }
        let list = |amounts: &Amounts| {
            let each = exceeded
                .iter()
                .map(|name| format!("{name}={}", of(amounts, name)));
            each.collect::<Vec<_>>().join(",")
        };
        Err(Denial::forbidden(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            list(&requested),
            list(&used),
            list(&hard)
        )))
    }

    /// What the write adds, of what the quota limits.
    fn requested(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        hard: &Amounts,
    ) -> Result<Amounts, Denial> {
        let mut requested = usage(self.kind, object);
        let negative: Vec<&str> = requested
            .iter()
            .filter(|(_, amount)| amount.is_negative())
            .map(|(name, _)| name.as_str())
            .collect();
        if !negative.is_empty() {
            let names = negative.join(",");
            return Err(Denial::forbidden(format!(
                "quota usage is negative for resource(s): {names}"
            )));
        }
        requested.retain(|name, _| hard.contains_key(name));
        let before = attributes.current.map(|now| &now.body);
        if let Some(before) = before.filter(|now| is_in_scope(self.quota, self.kind, now)) {
            let before = usage(self.kind, before);
            for (name, amount) in &mut requested {
                let had = before.get(name).copied().unwrap_or_default();
                *amount = amount.minus(had).max(Quantity::ZERO);
            }
        }
        requested.retain(|_, amount| !amount.is_zero());
        Ok(requested)
    }

    fn used(&self, namespace: &str, hard: &Amounts) -> Amounts {
        let mut used = Amounts::new();
        let mut charge = |object: &Value| {
            if is_in_scope(self.quota, self.kind, object) {
                let mut one = usage(self.kind, object);
                one.retain(|name, _| hard.contains_key(name));
                resources::add(&mut used, one);
            }
        };
        for object in self.view.list(self.kind, Some(namespace)) {
            charge(self.pending.get(&object.key).unwrap_or(&object.body));
        }
        for (key, object) in self.pending {
            let here = key.kind == self.kind && key.namespace == namespace;
            if here && self.view.get(key).is_none() {
                charge(object);
            }
        }
        used
    }
}
