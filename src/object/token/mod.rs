//! Tokens of service accounts: what is claimed, and who a token is.
//!
//! ```text
//!   bound    sub, aud, exp, kubernetes.io{namespace, serviceaccount, pod|secret|node, …}   TokenRequest
//!   legacy   iss kubernetes/serviceaccount, flat claims, no end                           Secret
//! ```
//! A token counts while the objects that it names are there under the same UIDs. Pure but for the
//! randomness of signatures: time and objects come from the caller.
//! Source: Kubernetes pkg/serviceaccount (claims.go, legacy.go, jwt.go).

mod check;
mod jwt;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use self::check::{Checked, LEGACY_ISSUER};
pub use self::jwt::{Key as SigningKey, claimed_expiry, claimed_issuer};
use super::Object;
use super::user::USER_SERVICE_ACCOUNT_PREFIX;

/// Whose tokens these are, and whom they are for unless they say: upstream's name of the API.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";
/// Shortest and longest life that may be asked for. Source: validateTokenRequest (2^32 seconds).
pub const LIFETIME_MIN: Duration = Duration::from_secs(600);
pub const LIFETIME_MAX: Duration = Duration::from_secs(1 << 32);
/// A token that asks for exactly this, bound to a pod and for the API alone, lives a year: clients of old
/// read it once. Source: pkg/serviceaccount (WarnOnlyBoundTokenExpiration).
const LIFETIME_WARNED: Duration = Duration::from_secs(3607);
const LIFETIME_EXTENDED: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a token is bound to: it ends with that object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub kind: BoundKind,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundKind {
    Pod,
    Secret,
    Node,
}

impl BoundKind {
    /// The claim's name.
    fn claim(self) -> &'static str {
        match self {
            BoundKind::Pod => "pod",
            BoundKind::Secret => "secret",
            BoundKind::Node => "node",
        }
    }
}

/// A token to be made.
pub struct Wanted<'a> {
    /// The ServiceAccount.
    pub account: &'a Object,
    /// Empty: the API's.
    pub audiences: Vec<String>,
    pub lifetime: Duration,
    pub bound: Option<Bound>,
    /// Name and UID of the node that the pod it is bound to runs on.
    pub node: Option<(String, String)>,
}

/// A token, and when it is said to end.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    pub token: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

/// Makes tokens and knows its own. Shared by the API and the kubelet.
pub struct Issuer {
    key: SigningKey,
    url: String,
}

impl Issuer {
    pub fn new(key: SigningKey) -> Issuer {
        Issuer {
            key,
            url: API_AUDIENCE.to_owned(),
        }
    }

    /// Signs a bound token. Errors: no randomness.
    pub fn mint(&self, wanted: &Wanted<'_>, now: Timestamp) -> Result<Minted, String> {
        let account = &wanted.account.key;
        let audiences = match wanted.audiences.as_slice() {
            [] => vec![API_AUDIENCE.to_owned()],
            stated => stated.to_vec(),
        };
        let mut private = json!({
            "namespace": account.namespace,
            "serviceaccount": {"name": account.name, "uid": wanted.account.uid()},
        });
        let mut real = wanted.lifetime;
        if let Some(bound) = &wanted.bound {
            private[bound.kind.claim()] = json!({"name": bound.name, "uid": bound.uid});
            let for_api = audiences.iter().all(|audience| audience == API_AUDIENCE);
            if bound.kind == BoundKind::Pod && for_api && wanted.lifetime == LIFETIME_WARNED {
                real = LIFETIME_EXTENDED;
                private["warnafter"] = json!(seconds(after(now, wanted.lifetime)));
            }
        }
        if let Some((name, uid)) = &wanted.node {
            private["node"] = json!({"name": name, "uid": uid});
        }
        let claims = json!({
            "iss": self.url,
            "sub": subject(&account.namespace, &account.name),
            "aud": audiences,
            "iat": seconds(now),
            "nbf": seconds(now),
            "exp": seconds(after(now, real)),
            "jti": self.key.random_id()?,
            "kubernetes.io": private,
        });
        Ok(Minted {
            token: self.key.sign(&claims)?,
            issued: now,
            expires: after(now, wanted.lifetime),
        })
    }

    /// Signs the token of a Secret of type `kubernetes.io/service-account-token`: without an end, it
    /// counts for as long as the Secret holds it.
    pub fn mint_legacy(&self, account: &Object, secret: &str) -> Result<String, String> {
        let (namespace, name) = (&account.key.namespace, &account.key.name);
        self.key.sign(&json!({
            "iss": LEGACY_ISSUER,
            "sub": subject(namespace, name),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
        }))
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({})", self.url)
    }
}

impl fmt::Debug for Minted {
    /// Without the token: this may be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minted({} to {})", self.issued, self.expires)
    }
}

fn subject(namespace: &str, name: &str) -> String {
    format!("{USER_SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

fn seconds(at: Timestamp) -> Value {
    json!(at.as_second())
}

fn after(now: Timestamp, span: Duration) -> Timestamp {
    now.saturating_add(span).unwrap_or(Timestamp::MAX)
}
