//! What sources share with others: objects that are there whether or not a list states them, and what
//! the node fills into those that one states. Pure.

use serde_json::{Value, json};

use super::desk::PROVISIONED;
use super::packed::Packed;
use crate::object::{Key, Kind, Object, Source, Standing};

/// Nobody's but for want of a better: whoever states it may have it.
pub(super) fn is_provisioned(now: &Packed) -> bool {
    match now.key().kind {
        Kind::Namespace => now.unpack().annotation(PROVISIONED).is_some(),
        Kind::ServiceAccount => is_default_account(now.key()) && now.source() == Source::Api,
        _ => false,
    }
}

/// Whether the remote cluster is deleting it.
pub(super) fn goes_there(desired: &Object) -> bool {
    desired.source == Source::Remote && desired.is_deleting()
}

/// The account that every namespace has.
fn is_default_account(key: &Key) -> bool {
    key.kind == Kind::ServiceAccount && key.name == "default"
}

/// What is there whether or not a manifest states it: without one it is the API's, as it was left,
/// and may be stated again. A namespace does not go from under what is in it.
pub(super) fn left_to_the_api(now: &Object) -> Option<Object> {
    let stays = now.key.kind == Kind::Namespace || is_default_account(&now.key);
    let mut left = Object {
        source: Source::Api,
        provenance: None,
        standing: Standing::Accepted,
        ..now.clone()
    };
    if now.key.kind == Kind::Namespace {
        let metadata = &mut left.body["metadata"];
        if !metadata["annotations"].is_object() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"][PROVISIONED] = json!("true");
    }
    stays.then_some(left)
}

/// What the node filled into a token Secret of a manifest stays, as long as it is for that account.
pub(super) fn keep_filled(kind: Kind, body: &mut Value, current: &Value) {
    const TYPE: &str = "kubernetes.io/service-account-token";
    const NAME: &str = "kubernetes.io/service-account.name";
    const UID: &str = "kubernetes.io/service-account.uid";
    let account = |body: &Value| body["metadata"]["annotations"][NAME].clone();
    if kind != Kind::Secret || body["type"] != TYPE || account(body) != account(current) {
        return;
    }
    // What is no object is refused later.
    let no_object = |value: &Value| !value.is_null() && !value.is_object();
    if no_object(&body["data"]) || no_object(&body["metadata"]["annotations"]) {
        return;
    }
    let stated = |body: &Value, name: &str| {
        body["data"].get(name).is_some() || body["stringData"].get(name).is_some()
    };
    for name in ["token", "ca.crt", "namespace"] {
        if let Some(filled) = current["data"].get(name)
            && !stated(body, name)
        {
            body["data"][name] = filled.clone();
        }
    }
    let annotations = &mut body["metadata"]["annotations"];
    if let Some(uid) = current["metadata"]["annotations"].get(UID)
        && annotations.get(UID).is_none()
    {
        annotations[UID] = uid.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_node_filled_in_stays_and_what_is_no_object_is_left_for_who_refuses_it() {
        let secret = |data: Value, annotations: Value| {
            json!({"type": "kubernetes.io/service-account-token", "data": data,
                   "metadata": {"annotations": annotations}})
        };
        let filled = json!({"token": "dA=="});
        let uid = json!({"kubernetes.io/service-account.uid": "u1"});
        let current = secret(filled.clone(), uid.clone());
        for (mut stated, kept) in [
            (secret(Value::Null, Value::Null), secret(filled, uid)),
            (secret(json!("text"), json!({})), Value::Null),
            (secret(json!(["a"]), json!({})), Value::Null),
            (secret(json!({}), json!("text")), Value::Null),
        ] {
            let kept = if kept.is_null() { stated.clone() } else { kept };
            keep_filled(Kind::Secret, &mut stated, &current);
            assert_eq!(stated, kept);
        }
    }
}
