use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{API_AUDIENCE, Bound, BoundKind, Checked, Issuer, SigningKey, Wanted};
use crate::object::{Key, Kind, Object, Source, Standing};

const NOW_S: i64 = 1_800_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a date")
}

fn object(kind: Kind, name: &str, uid: &str, more: Value) -> Arc<Object> {
    let namespace = if kind.namespaced() { "a" } else { "" };
    let mut body = json!({"metadata": {"name": name, "uid": uid}});
    for (field, value) in more.as_object().into_iter().flatten() {
        match body[field].as_object_mut() {
            Some(fields) => fields.extend(value.as_object().cloned().unwrap_or_default()),
            None => body[field] = value.clone(),
        }
    }
    Arc::new(Object {
        key: Key::local(kind, namespace, name),
        source: Source::Api,
        provenance: None,
        standing: Standing::Accepted,
        resource_version: 1,
        body,
    })
}

#[derive(Default)]
struct World(BTreeMap<Key, Arc<Object>>);

impl World {
    fn with(objects: &[&Arc<Object>]) -> World {
        let pairs = objects.iter().map(|o| (o.key.clone(), Arc::clone(o)));
        World(pairs.collect())
    }

    fn check(&self, issuer: &Issuer, token: &str, now_s: i64) -> Result<Option<Checked>, String> {
        issuer.check(token, &[], at(now_s), &|key| self.0.get(key).cloned())
    }
}

fn issuer() -> Issuer {
    let key = SigningKey::generate().expect("key");
    Issuer::new(SigningKey::from_pkcs8(&key).expect("key"))
}

fn wanted<'a>(account: &'a Object, bound: Option<Bound>) -> Wanted<'a> {
    Wanted {
        account,
        audiences: Vec::new(),
        lifetime: Duration::from_secs(3600),
        bound,
        node: None,
    }
}

fn pod_bound() -> Option<Bound> {
    Some(Bound {
        kind: BoundKind::Pod,
        name: "web".into(),
        uid: "p1".into(),
    })
}

#[test]
fn a_bound_token_is_its_account_while_all_that_it_names_is_there() {
    let issuer = issuer();
    let account = object(Kind::ServiceAccount, "robot", "s1", json!({}));
    let other = object(Kind::ServiceAccount, "robot", "s2", json!({}));
    let pod = object(Kind::Pod, "web", "p1", json!({}));
    let successor = object(Kind::Pod, "web", "p2", json!({}));
    let deleted = |seconds| {
        let stamp = at(seconds).to_string();
        object(
            Kind::Pod,
            "web",
            "p1",
            json!({"metadata": {"deletionTimestamp": stamp}}),
        )
    };
    let (leaving, gone) = (deleted(NOW_S - 59), deleted(NOW_S - 61));
    let minted = issuer
        .mint(&wanted(&account, pod_bound()), at(NOW_S))
        .expect("mint");
    let known = World::with(&[&account, &pod]);
    let checked = known
        .check(&issuer, &minted.token, NOW_S)
        .expect("good")
        .expect("ours");
    assert_eq!(checked.user.name, "system:serviceaccount:a:robot");
    assert_eq!(checked.user.uid, "s1");
    let groups = [
        "system:serviceaccounts",
        "system:serviceaccounts:a",
        "system:authenticated",
    ];
    assert_eq!(checked.user.groups, groups);
    assert_eq!(
        checked.user.extra["authentication.kubernetes.io/pod-uid"],
        ["p1"]
    );
    assert!(
        checked.user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("JTI=")
    );
    assert_eq!(checked.audiences, [API_AUDIENCE]);

    let table = [
        (vec![&account, &pod], NOW_S + 3600, None),
        (vec![&account, &pod], NOW_S + 3601, Some("has expired")),
        (vec![&account, &pod], NOW_S - 1, Some("not valid yet")),
        (vec![&pod], NOW_S, Some("a/robot is gone")),
        (
            vec![&other, &pod],
            NOW_S,
            Some("UID of service account a/robot"),
        ),
        (vec![&account], NOW_S, Some("bound pod")),
        (vec![&account, &successor], NOW_S, Some("bound pod")),
        (vec![&account, &leaving], NOW_S, None),
        (vec![&account, &gone], NOW_S, Some("bound pod")),
    ];
    for (objects, now_s, refused) in table {
        let result = World::with(&objects).check(&issuer, &minted.token, now_s);
        match (&result, refused) {
            (Ok(Some(_)), None) => {}
            (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
            _ => panic!("{objects:?} at {now_s}: {result:?}"),
        }
    }
}

#[test]
fn audiences_must_meet() {
    let issuer = issuer();
    let account = object(Kind::ServiceAccount, "robot", "s1", json!({}));
    let mut vault = wanted(&account, None);
    vault.audiences = vec!["vault".into(), "x".into()];
    let minted = issuer.mint(&vault, at(NOW_S)).expect("mint");
    let known = World::with(&[&account]);
    let why = known
        .check(&issuer, &minted.token, NOW_S)
        .expect_err("not for the API");
    assert!(why.contains("audiences"), "{why}");
    let asked = ["vault".to_owned(), "y".to_owned()];
    let lookup = |key: &Key| known.0.get(key).cloned();
    let checked = issuer.check(&minted.token, &asked, at(NOW_S), &lookup);
    assert_eq!(checked.expect("good").expect("ours").audiences, ["vault"]);
}

#[test]
fn what_is_not_ours_is_left_to_others() {
    let (ours, theirs) = (issuer(), issuer());
    let account = object(Kind::ServiceAccount, "robot", "s1", json!({}));
    let known = World::with(&[&account]);
    for token in ["", "abc", "a.b.c"] {
        assert_eq!(known.check(&ours, token, NOW_S), Ok(None), "{token}");
    }
    let foreign = theirs
        .mint(&wanted(&account, None), at(NOW_S))
        .expect("mint");
    let why = known
        .check(&ours, &foreign.token, NOW_S)
        .expect_err("same issuer, other key");
    assert_eq!(why, "invalid signature");
}

#[test]
fn the_usual_token_of_a_pod_outlives_what_it_says() {
    let issuer = issuer();
    let account = object(Kind::ServiceAccount, "robot", "s1", json!({}));
    let pod = object(Kind::Pod, "web", "p1", json!({}));
    let mut usual = wanted(&account, pod_bound());
    usual.lifetime = Duration::from_secs(3607);
    let minted = issuer.mint(&usual, at(NOW_S)).expect("mint");
    assert_eq!(minted.expires, at(NOW_S + 3607));
    let known = World::with(&[&account, &pod]);
    let year = 365 * 24 * 3600;
    assert!(known.check(&issuer, &minted.token, NOW_S + year).is_ok());
    assert!(
        known
            .check(&issuer, &minted.token, NOW_S + year + 1)
            .is_err()
    );
}

#[test]
fn a_token_of_a_secret_counts_while_the_secret_holds_it() {
    let issuer = issuer();
    let account = object(Kind::ServiceAccount, "robot", "s1", json!({}));
    let token = issuer.mint_legacy(&account, "robot-token").expect("mint");
    let encode =
        |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let holding = |text: &str| {
        object(
            Kind::Secret,
            "robot-token",
            "t1",
            json!({"data": {"token": encode(text)}}),
        )
    };
    let (same, other) = (holding(&token), holding("other"));
    let table = [
        (vec![&account, &same], None),
        (vec![&account, &other], Some("does not match server's copy")),
        (vec![&account], Some("has been invalidated")),
        (vec![&same], Some("a/robot is gone")),
    ];
    for (objects, refused) in table {
        let result = World::with(&objects).check(&issuer, &token, NOW_S);
        match (&result, refused) {
            (Ok(Some(checked)), None) => {
                assert_eq!(checked.user.name, "system:serviceaccount:a:robot");
            }
            (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
            _ => panic!("{result:?}"),
        }
    }
}
