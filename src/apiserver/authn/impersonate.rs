//! `kubectl --as`: one user asks in the name of another, if authorization lets them.
//!
//! Each name, group, uid and extra value is a resource on which the verb `impersonate` is asked.
//! Source: Kubernetes apiserver, endpoints/filters/impersonation.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;

use super::super::authz::Authorizer;
use super::super::request_info::RequestInfo;
use super::super::status::Refusal;
use crate::object::User;
use crate::object::user::{
    GROUP_AUTHENTICATED, GROUP_SERVICE_ACCOUNTS, GROUP_UNAUTHENTICATED, USER_ANONYMOUS,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const GROUP_OF_REVIEWS: &str = "authentication.k8s.io";

/// Whom the headers name.
struct Asked {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// The user in whose name a request is: `user`, unless its headers name another.
/// Errors: 400 for half a set of headers, 403 for each part that `user` may not take on.
pub fn impersonate(
    user: Arc<User>,
    headers: &HeaderMap,
    authorizer: &Authorizer,
) -> Result<Arc<User>, Refusal> {
    let Some(asked) = Asked::of(headers)? else {
        return Ok(user);
    };
    let mut target = User {
        name: asked.name.clone(),
        uid: asked.uid.clone(),
        groups: asked.groups.clone(),
        extra: asked.extra.clone(),
    };
    let account = target.service_account();
    let account = account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    match &account {
        Some((namespace, name)) => {
            ask(
                authorizer,
                &user,
                ["", "serviceaccounts", "", namespace, name],
            )?;
        }
        None => ask(authorizer, &user, ["", "users", "", "", &asked.name])?,
    }
    for group in &asked.groups {
        ask(authorizer, &user, ["", "groups", "", "", group])?;
    }
    for (key, values) in &asked.extra {
        for value in values {
            let parts = [GROUP_OF_REVIEWS, "userextras", key.as_str(), "", value];
            ask(authorizer, &user, parts)?;
        }
    }
    if !asked.uid.is_empty() {
        ask(
            authorizer,
            &user,
            [GROUP_OF_REVIEWS, "uids", "", "", &asked.uid],
        )?;
    }
    if let (Some((namespace, _)), true) = (&account, asked.groups.is_empty()) {
        target.groups = vec![
            GROUP_SERVICE_ACCOUNTS.to_owned(),
            format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}"),
        ];
    }
    let implied = match target.name.as_str() {
        USER_ANONYMOUS => GROUP_UNAUTHENTICATED,
        _ => GROUP_AUTHENTICATED,
    };
    if !target.is_in(implied) && !target.is_in(GROUP_UNAUTHENTICATED) {
        target.groups.push(implied.to_owned());
    }
    log::info!("{} acts as {}", user.name, target.name);
    Ok(Arc::new(target))
}

/// Asks for the verb `impersonate`: group, resource, subresource, namespace, name.
fn ask(authorizer: &Authorizer, user: &User, parts: [&str; 5]) -> Result<(), Refusal> {
    let [group, resource, subresource, namespace, name] = parts.map(str::to_owned);
    let version = if group.is_empty() { "" } else { "v1" };
    let request = RequestInfo {
        is_resource: true,
        verb: "impersonate".to_owned(),
        version: version.to_owned(),
        group,
        resource,
        subresource,
        namespace,
        name,
        ..RequestInfo::default()
    };
    authorizer.check(user, &request)
}

impl Asked {
    fn of(headers: &HeaderMap) -> Result<Option<Asked>, Refusal> {
        let all = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).iter();
            let texts = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            texts.collect()
        };
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in headers.keys() {
            if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
                extra.insert(unescape(key), all(name.as_str()));
            }
        }
        let (name, groups) = (all(USER).into_iter().next(), all(GROUP));
        let uid = all(UID).into_iter().next().unwrap_or_default();
        let name = name.filter(|name| !name.is_empty());
        let beside = !groups.is_empty() || !uid.is_empty() || !extra.is_empty();
        match name {
            Some(name) => Ok(Some(Asked {
                name,
                uid,
                groups,
                extra,
            })),
            None if beside => Err(Refusal::bad_request(
                "requested impersonation of groups, uid or extra without a user name",
            )),
            None => Ok(None),
        }
    }
}

/// Percent-decoded; a text that is not is kept.
fn unescape(key: &str) -> String {
    super::super::query::decode(key).unwrap_or_else(|_| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::authz::Authorizer;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("header"));
        }
        headers
    }

    fn masters() -> Arc<User> {
        Arc::new(User::new("root", &["system:masters"]))
    }

    #[test]
    fn a_master_becomes_whom_the_headers_name() {
        let service_account: &[&str] = &[
            "system:serviceaccounts",
            "system:serviceaccounts:a",
            "system:authenticated",
        ];
        type Pairs = &'static [(&'static str, &'static str)];
        let table: [(Pairs, &str, &[&str]); 5] = [
            (&[], "root", &["system:masters"]),
            (&[(USER, "jane")], "jane", &["system:authenticated"]),
            (
                &[(USER, "jane"), (GROUP, "dev"), (GROUP, "ops")],
                "jane",
                &["dev", "ops", "system:authenticated"],
            ),
            (
                &[(USER, "system:serviceaccount:a:b")],
                "system:serviceaccount:a:b",
                service_account,
            ),
            (
                &[(USER, "system:anonymous")],
                "system:anonymous",
                &["system:unauthenticated"],
            ),
        ];
        for (pairs, name, groups) in table {
            let user = impersonate(masters(), &headers(pairs), &Authorizer::default());
            let user = user.expect("allowed");
            assert_eq!(
                (user.name.as_str(), &user.groups[..]),
                (name, &own(groups)[..])
            );
        }
        let pairs = [(USER, "j"), ("impersonate-extra-a%2fb", "x"), (UID, "7")];
        let user = impersonate(masters(), &headers(&pairs), &Authorizer::default());
        let user = user.expect("allowed");
        assert_eq!(user.extra["a/b"], ["x"]);
        assert_eq!(user.uid, "7");
    }

    fn own(groups: &[&str]) -> Vec<String> {
        groups.iter().map(|group| (*group).to_owned()).collect()
    }

    #[test]
    fn others_may_not_and_half_a_set_is_refused() {
        let jane = Arc::new(User::new("jane", &["dev"]));
        let asked = headers(&[(USER, "root")]);
        let refused = impersonate(jane, &asked, &Authorizer::default());
        let text = "users \"root\" is forbidden: User \"jane\" cannot impersonate resource \
                    \"users\" in API group \"\" at the cluster scope";
        assert_eq!(refused.expect_err("refused").message, text);
        let half = headers(&[(GROUP, "system:masters")]);
        let refused = impersonate(masters(), &half, &Authorizer::default());
        assert_eq!(refused.expect_err("refused").code, 400);
    }
}
