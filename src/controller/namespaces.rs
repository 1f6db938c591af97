//! The built-in namespaces, and what every namespace has: the account `default` and the CA's
//! certificate. In `default` also the Service by which pods know this API.
//!
//! They are made when they are missing and put right when they are not what they should be: the
//! certificate follows the CA. Of a manifest's own version nothing is changed.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Controllers, Outcome, Patience, either, emptying};
use crate::object::{Key, Kind, Object, Origin, Source};
use crate::registry::{Error, PROVISIONED};

/// There from the start. Source: Kubernetes pkg/controlplane (systemnamespaces).
const BUILT_IN: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const CERTIFICATE: &str = "kube-root-ca.crt";
/// The first version's words, which tools show. Source: rootcacertpublisher.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when \
    using internal endpoints such as the internal service IP or kubernetes.default.svc. No other \
    usage is guaranteed across distributions of Kubernetes clusters.";

/// What is looked after here.
const KINDS: [Kind; 5] = [
    Kind::Namespace,
    Kind::ServiceAccount,
    Kind::ConfigMap,
    Kind::Service,
    Kind::Endpoints,
];

/// Keeps all of it, for ever.
pub async fn keep(controllers: Controllers) {
    let reader = controllers.reader();
    let mut patience = Patience::default();
    loop {
        // Read and listened for first: what changes during the turn wakes the wait below.
        let version = reader.version();
        let renewed = controllers.trust.changed.listen();
        let outcome = turn(&controllers).await;
        let (namespaces, _) = reader.list_packed(Kind::Namespace, None);
        let change = match namespaces.iter().any(|namespace| namespace.is_deleting()) {
            true => reader.changed(&Kind::ALL, version),
            false => reader.changed(&KINDS, version),
        };
        drop(namespaces);
        patience
            .wait(&*controllers.clock, outcome, either(change, renewed))
            .await;
    }
}

/// One look at everything.
pub async fn turn(controllers: &Controllers) -> Outcome {
    let reader = controllers.reader();
    let mut outcome = Outcome::Settled;
    for name in BUILT_IN {
        let key = Key::local(Kind::Namespace, "", name);
        if !reader.contains(&key) {
            let body = json!({"metadata": {"annotations": {PROVISIONED: "true"}}});
            outcome = outcome.and(provide(controllers, key, body).await);
        }
    }
    let (namespaces, _) = reader.list_packed(Kind::Namespace, None);
    for namespace in namespaces {
        let key = namespace.key();
        if key.origin != Origin::Local {
            continue;
        }
        let done = match namespace.is_deleting() {
            true => emptying::turn(controllers, &namespace.unpack()).await,
            false => furnish(controllers, &key.name).await,
        };
        outcome = outcome.and(done);
    }
    if let Some(api) = controllers.api {
        for (key, wanted) in api_objects(api) {
            outcome = outcome.and(set_right(controllers, key, wanted, &["spec", "subsets"]).await);
        }
    }
    outcome
}

async fn provide(controllers: &Controllers, key: Key, body: Value) -> Outcome {
    Outcome::of(controllers.registry.provide(key, body).await)
}

/// What every namespace has.
async fn furnish(controllers: &Controllers, namespace: &str) -> Outcome {
    let account = Key::local(Kind::ServiceAccount, namespace, "default");
    let mut outcome = Outcome::Settled;
    if !controllers.reader().contains(&account) {
        outcome = provide(controllers, account, json!({})).await;
    }
    let key = Key::local(Kind::ConfigMap, namespace, CERTIFICATE);
    let wanted = json!({
        "metadata": {"annotations": {"kubernetes.io/description": DESCRIPTION}},
        "data": {"ca.crt": controllers.trust.certificate()},
    });
    outcome.and(set_right(controllers, key, wanted, &["data"]).await)
}

/// Makes the object, or makes these fields of it what they should be.
async fn set_right(controllers: &Controllers, key: Key, wanted: Value, fields: &[&str]) -> Outcome {
    let body = match controllers.reader().get(&key) {
        None => wanted,
        Some(now) if now.source != Source::Api || now.is_deleting() => return Outcome::Settled,
        Some(now) => match corrected(&now, &wanted, fields) {
            None => return Outcome::Settled,
            Some(body) => body,
        },
    };
    match controllers.registry.provide(key, body).await {
        // A namespace that has gone meanwhile, a body that users keep from being right.
        Err(Error::Invalid { .. }) => Outcome::Settled,
        other => Outcome::of(other),
    }
}

/// `None` if nothing differs.
fn corrected(now: &Object, wanted: &Value, fields: &[&str]) -> Option<Value> {
    let differs = |field: &&&str| now.body.get(**field) != wanted.get(**field);
    fields.iter().find(differs)?;
    let mut body = now.body.clone();
    for field in fields {
        match wanted.get(field) {
            Some(value) => body[*field] = value.clone(),
            None => {
                body.as_object_mut().map(|fields| fields.remove(*field));
            }
        }
    }
    Some(body)
}

/// Service and Endpoints `kubernetes`: plain objects that name the address which the environment of
/// every pod names too. Nothing is balanced or translated on the way there.
fn api_objects(api: SocketAddr) -> [(Key, Value); 2] {
    let (ip, port) = (api.ip().to_string(), api.port());
    let key = |kind| Key::local(kind, "default", "kubernetes");
    let service = json!({
        "metadata": {"labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": [if api.is_ipv4() { "IPv4" } else { "IPv6" }],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": port, "protocol": "TCP", "targetPort": port}],
            "sessionAffinity": "None",
        },
    });
    let endpoints = json!({
        "metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": ip}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    });
    [
        (key(Kind::Service), service),
        (key(Kind::Endpoints), endpoints),
    ]
}
