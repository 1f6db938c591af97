//! From a token to its identity: signature, dates, audience, and every object that it names.
//! Source: Kubernetes pkg/serviceaccount (jwt.go, claims.go Validate, legacy.go Validate).

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::jwt::claimed_issuer;
use super::{API_AUDIENCE, Issuer, subject};
use crate::object::user::{GROUP_AUTHENTICATED, GROUP_SERVICE_ACCOUNTS};
use crate::object::{Key, Kind, Object, User};

/// The `iss` of tokens in Secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const LEGACY: &str = "kubernetes.io/serviceaccount/";
/// A deleted object's tokens count this much longer. Source: jwt.DefaultLeeway.
const LEEWAY_S: i64 = 60;

/// Whom a token is for and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub user: User,
    /// Of those that were asked for, the ones that the token has.
    pub audiences: Vec<String>,
}

/// Looks objects up: a registry's snapshot.
type Lookup<'a> = &'a dyn Fn(&Key) -> Option<Arc<Object>>;

/// What a token says of one account.
struct Claimed {
    namespace: String,
    account: String,
    account_uid: String,
}

impl Issuer {
    /// Who a token is. `Ok(None)`: none of this issuer's. `audiences`: one of these must be the
    /// token's; empty for the API itself. Errors: why one of its own does not count now.
    pub fn check(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
        lookup: Lookup<'_>,
    ) -> Result<Option<Checked>, String> {
        let issuer = claimed_issuer(token);
        let legacy = match issuer.as_deref() {
            Some(LEGACY_ISSUER) => true,
            Some(issuer) if issuer == self.url => false,
            _ => return Ok(None),
        };
        let claims = self.key.verify(token)?;
        let own = [API_AUDIENCE.to_owned()];
        let asked = if audiences.is_empty() {
            &own
        } else {
            audiences
        };
        let has = match legacy {
            // Made before there were audiences: they are for the API.
            true => vec![API_AUDIENCE],
            false => texts(&claims["aud"]),
        };
        let shared: Vec<String> = asked
            .iter()
            .filter(|a| has.contains(&a.as_str()))
            .cloned()
            .collect();
        if shared.is_empty() {
            // As Go's %q writes lists.
            let quoted = |list: &[&str]| {
                let quoted = list.iter().map(|one| format!("{one:?}"));
                quoted.collect::<Vec<_>>().join(" ")
            };
            let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
            return Err(format!(
                "token audiences [{}] is invalid for the target audiences [{}]",
                quoted(&has),
                quoted(&asked)
            ));
        }
        let mut user = match legacy {
            true => self.check_legacy(token, &claims, now, lookup)?,
            false => check_bound(&claims, now, lookup)?,
        };
        if let Some(id) = claims["jti"].as_str() {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            user.extra.insert(key, vec![format!("JTI={id}")]);
        }
        Ok(Some(Checked {
            user,
            audiences: shared,
        }))
    }

    fn check_legacy(
        &self,
        token: &str,
        claims: &Value,
        now: Timestamp,
        lookup: Lookup<'_>,
    ) -> Result<User, String> {
        let claim = |name: &str| text(&claims[format!("{LEGACY}{name}")]);
        let claimed = Claimed {
            namespace: claim("namespace"),
            account: claim("service-account.name"),
            account_uid: claim("service-account.uid"),
        };
        let name = claim("secret.name");
        let key = Key::local(Kind::Secret, &claimed.namespace, &name);
        let secret = lookup(&key).filter(|secret| !is_gone(secret, now));
        let secret = secret.ok_or("service account token has been invalidated")?;
        let held = secret.body["data"]["token"].as_str().unwrap_or_default();
        let held = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, held);
        if held.ok().as_deref() != Some(token.as_bytes()) {
            return Err("service account token does not match server's copy".to_owned());
        }
        claimed.user(claims, now, lookup)
    }
}

fn check_bound(claims: &Value, now: Timestamp, lookup: Lookup<'_>) -> Result<User, String> {
    let (from, until) = (claims["nbf"].as_i64(), claims["exp"].as_i64());
    if until.is_none_or(|until| now.as_second() > until) {
        return Err("service account token has expired".to_owned());
    }
    if from.is_some_and(|from| now.as_second() < from) {
        return Err("service account token is not valid yet".to_owned());
    }
    let private = &claims["kubernetes.io"];
    let claimed = Claimed {
        namespace: text(&private["namespace"]),
        account: text(&private["serviceaccount"]["name"]),
        account_uid: text(&private["serviceaccount"]["uid"]),
    };
    let mut user = claimed.user(claims, now, lookup)?;
    let bound = [
        ("pod", Kind::Pod),
        ("secret", Kind::Secret),
        ("node", Kind::Node),
    ];
    for (name, kind) in bound {
        let reference = &private[name];
        if reference.is_null() {
            continue;
        }
        let (object, uid) = (text(&reference["name"]), text(&reference["uid"]));
        // A pod's token also names its node, for information only.
        if kind != Kind::Node || private["pod"].is_null() {
            let namespace = if kind.namespaced() {
                &*claimed.namespace
            } else {
                ""
            };
            let found = lookup(&Key::local(kind, namespace, &object));
            let same = found.is_some_and(|found| found.uid() == uid && !is_gone(&found, now));
            if !same {
                return Err(format!(
                    "bound {name} {object:?} is gone, or another of that name"
                ));
            }
        }
        if kind != Kind::Secret {
            let key = |part: &str| format!("authentication.kubernetes.io/{name}-{part}");
            user.extra.insert(key("name"), vec![object]);
            user.extra.insert(key("uid"), vec![uid]);
        }
    }
    Ok(user)
}

impl Claimed {
    /// The identity, if the account is what the token says.
    fn user(&self, claims: &Value, now: Timestamp, lookup: Lookup<'_>) -> Result<User, String> {
        let Claimed {
            namespace,
            account,
            account_uid,
        } = self;
        if namespace.is_empty() || account.is_empty() || account_uid.is_empty() {
            return Err("token names no service account".to_owned());
        }
        let name = subject(namespace, account);
        if claims["sub"] != name.as_str() {
            return Err("token's subject is not its service account".to_owned());
        }
        let found = lookup(&Key::local(Kind::ServiceAccount, namespace, account));
        let found = found.filter(|found| !is_gone(found, now));
        let found =
            found.ok_or_else(|| format!("service account {namespace}/{account} is gone"))?;
        if found.uid() != account_uid {
            return Err(format!(
                "the UID of service account {namespace}/{account} is another"
            ));
        }
        Ok(User {
            uid: account_uid.clone(),
            ..User::new(
                &name,
                &[
                    GROUP_SERVICE_ACCOUNTS,
                    &format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}"),
                    GROUP_AUTHENTICATED,
                ],
            )
        })
    }
}

/// Deleted for longer than clocks may differ.
fn is_gone(object: &Object, now: Timestamp) -> bool {
    let deleted = object.metadata()["deletionTimestamp"].as_str();
    let deleted = deleted.and_then(|text| text.parse::<Timestamp>().ok());
    deleted.is_some_and(|at| now.as_second() > at.as_second().saturating_add(LEEWAY_S))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `aud` is one text or a list of them (RFC 7519 section 4.1.3).
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}
