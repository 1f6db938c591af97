//! Pulls, from registries that behave and from those that do not.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_lite::future;
use lowtide::runtime::images::{Options, Registries};
use lowtide::world::{Image, Images, PullError, PullRequest};

use crate::image::{Entry, Packing, Recipe, tar_of};
use crate::registry::{Fake, Real, Reply, honest};
use crate::world::{leftovers, open, options, run, temporary};

/// Options of a store that speaks plain HTTP to `address`.
pub fn plain(directory: &Path, address: &str) -> Options {
    let text = format!("mirrors: {{'{address}': {{endpoint: ['http://{address}']}}}}");
    configured(directory, &text)
}

pub fn configured(directory: &Path, text: &str) -> Options {
    let path = directory.join("registries.yaml");
    std::fs::write(&path, text).unwrap();
    let mut options = options(directory);
    options.registries = Registries::load(&path).unwrap();
    options
}

pub fn request(reference: &str) -> PullRequest {
    PullRequest {
        reference: reference.to_owned(),
        docker_configs: Vec::new(),
    }
}

fn with_login(reference: &str, host: &str, auth: &str) -> PullRequest {
    let config = serde_json::json!({"auths": {host: {"auth": auth}}});
    PullRequest {
        docker_configs: vec![config.to_string().into_bytes()],
        ..request(reference)
    }
}

/// `tide:water` in base64.
const LOGIN: &str = "dGlkZTp3YXRlcg==";

pub fn pull(options: Options, request: PullRequest) -> Result<Arc<Image>, PullError> {
    run(async { open(options).await.pull(request).await })
}

/// An image whose one layer does not compress.
pub fn big() -> Recipe {
    let mut state = 1u64;
    let noise: Vec<u8> = (0..3_000_000)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 56) as u8
        })
        .collect();
    let layers = vec![tar_of(&[Entry::File("noise", 0o644, &noise)])];
    Recipe {
        layers,
        packing: Packing::Gzip,
        ..Recipe::small("")
    }
}

#[test]
fn a_real_registry_serves_an_image_once() {
    let directory = temporary();
    let Some(real) = Real::start(directory.path(), "", "") else {
        return;
    };
    let recipe = Recipe::busybox();
    real.push(directory.path(), &recipe, "a/busybox:1", &[]);
    let name = format!("{}/a/busybox:1", real.address);
    run(async {
        let store = open(plain(directory.path(), &real.address)).await;
        let before = store.generation();
        let image = store.pull(request(&name)).await.unwrap();
        assert_eq!(image.id, recipe.id());
        assert_eq!(image.tags, std::slice::from_ref(&name));
        assert_eq!(image.digests.len(), 1);
        assert!(store.generation() > before);
        assert!(
            store.layers(&image.id).unwrap()[1]
                .join("bin/busybox")
                .is_file()
        );
        assert_eq!(store.find(&image.digests[0]).unwrap().id, image.id);
        assert_eq!(
            store.pull(request(&image.digests[0])).await.unwrap().id,
            image.id
        );
        let missing = store.pull(request(&format!("{}/none", real.address))).await;
        assert!(matches!(missing, Err(PullError::Refused(_))), "{missing:?}");
    });
}

#[test]
fn a_registry_without_plain_http_configured_is_never_asked_in_the_clear() {
    let fake = Fake::start(honest(&Recipe::small("x")));
    let directory = temporary();
    // Here, but on no loopback address.
    let elsewhere = fake.address.replace("127.0.0.1", "0.0.0.0");
    let error = pull(
        options(directory.path()),
        request(&format!("{elsewhere}/x")),
    );
    assert!(error.is_err());
    assert!(fake.seen("/v2/").is_empty());
    let name = format!("{}/x", fake.address);
    pull(options(directory.path()), request(&name)).unwrap();
}

#[test]
fn basic_auth_takes_the_credential_that_fits() {
    let directory = temporary();
    let Ok(line) = Command::new("htpasswd")
        .args(["-Bbn", "tide", "water"])
        .output()
    else {
        return eprintln!("skipped: no htpasswd");
    };
    let file = directory.path().join("htpasswd");
    std::fs::write(&file, line.stdout).unwrap();
    let auth = format!(
        "auth: {{htpasswd: {{realm: r, path: {}}}}}\n",
        file.display()
    );
    let Some(real) = Real::start(directory.path(), &auth, "") else {
        return;
    };
    let login = ["--dest-creds", "tide:water"];
    real.push(directory.path(), &Recipe::small("x"), "x:1", &login);
    let name = format!("{}/x:1", real.address);
    let options = || plain(directory.path(), &real.address);
    let refused = pull(options(), request(&name));
    assert!(matches!(refused, Err(PullError::Refused(_))), "{refused:?}");
    let wrong = pull(options(), with_login(&name, &real.address, "dGlkZTpkcnk="));
    assert!(matches!(wrong, Err(PullError::Refused(_))), "{wrong:?}");
    pull(options(), with_login(&name, &real.address, LOGIN)).unwrap();
    // From the node's own file.
    let config = serde_json::json!({"auths": {&real.address: {"auth": LOGIN}}});
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    pull(options(), request(&name)).unwrap();
}

/// Makes `ca.pem` and, signed by it, a certificate for `subject` (`IP:127.0.0.1`); returns what
/// the registry's configuration says of it.
pub fn certificate(directory: &Path, subject: &str) -> String {
    let at = |name: &str| directory.join(name).display().to_string();
    let script = format!(
        "cd {} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key \
         -out ca.pem -subj /CN=ca -days 2 && openssl req -newkey ec -pkeyopt \
         ec_paramgen_curve:P-256 -nodes -keyout key.pem -out csr.pem -subj /CN=r && printf \
         'subjectAltName={subject}' > ext && openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key \
         -CAcreateserial -days 2 -extfile ext -out cert.pem",
        directory.display()
    );
    let made = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let (certificate, key) = (at("cert.pem"), at("key.pem"));
    format!("  tls: {{certificate: {certificate}, key: {key}}}\n")
}

#[test]
fn tls_needs_the_registrys_own_ca() {
    let directory = temporary();
    let tls = certificate(directory.path(), "IP:127.0.0.1");
    let Some(real) = Real::start(directory.path(), "", &tls) else {
        return;
    };
    real.push(directory.path(), &Recipe::small("x"), "x:1", &[]);
    let name = format!("{}/x:1", real.address);
    let unknown = configured(
        directory.path(),
        &format!("configs: {{'{}': {{}}}}", real.address),
    );
    let refused = pull(unknown, request(&name)).unwrap_err();
    assert!(refused.to_string().contains("tls"), "{refused}");
    let text = format!(
        "configs: {{'{}': {{tls: {{ca_file: {}}}}}}}",
        real.address,
        directory.path().join("ca.pem").display()
    );
    pull(configured(directory.path(), &text), request(&name)).unwrap();
}

#[test]
fn a_connection_that_breaks_goes_on_where_it_was() {
    let recipe = big();
    let size = recipe.packed_layers()[0].len();
    let whole = honest(&recipe);
    let fake = Fake::start(move |seen| {
        let reply = whole(seen);
        Reply {
            cut: (reply.body.len() > 400_000).then_some(400_000),
            ..reply
        }
    });
    let directory = temporary();
    let name = format!("{}/big", fake.address);
    assert_eq!(
        pull(plain(directory.path(), &fake.address), request(&name))
            .unwrap()
            .id,
        recipe.id()
    );
    let ranges = fake
        .seen("/blobs/")
        .iter()
        .filter(|seen| seen.headers.contains_key("range"))
        .count();
    assert!(ranges >= 7, "{ranges} resumed requests");
    let sent = *fake.sent.lock().unwrap();
    assert!(sent < size * 3 / 2, "{sent} bytes for {size}");
}

#[test]
fn a_registry_without_ranges_costs_bytes_but_works() {
    let recipe = big();
    let whole = honest(&recipe);
    let count = AtomicUsize::new(0);
    let fake = Fake::start(move |seen| {
        let mut seen = seen.clone();
        seen.headers.remove("range");
        let reply = whole(&seen);
        let big = reply.body.len() > 1_000_000;
        let cut = (big && count.fetch_add(1, Ordering::Relaxed) == 0).then_some(1_000_000);
        Reply { cut, ..reply }
    });
    let directory = temporary();
    let name = format!("{}/big", fake.address);
    pull(plain(directory.path(), &fake.address), request(&name)).unwrap();
}

#[test]
fn lies_about_content_are_refused_and_leave_nothing() {
    let recipe = Recipe::small("x");
    let layer = recipe.packed_layers()[0].clone();
    type Change = fn(&mut Vec<u8>);
    let table: [(&str, &str, Change); 4] = [
        ("blobs", "other bytes", |body| {
            *body.last_mut().unwrap() ^= 1
        }),
        ("blobs", "too long", |body| body.push(0)),
        ("blobs", "other configuration", |body| body[0] = b' '),
        ("manifests", "ambiguous", |body| {
            let text = String::from_utf8(body.clone()).unwrap();
            *body = text.replacen('{', "{\"manifests\":[],", 1).into_bytes();
        }),
    ];
    for (part, what, change) in table {
        let whole = honest(&recipe);
        let fake = Fake::start(move |seen| {
            let mut reply = whole(seen);
            if seen.path.contains(part) && reply.status == 200 {
                change(&mut reply.body);
            }
            reply
        });
        let directory = temporary();
        let name = format!("{}/x", fake.address);
        let result = pull(plain(directory.path(), &fake.address), request(&name));
        assert!(
            matches!(result, Err(PullError::Refused(_))),
            "{what}: {result:?}"
        );
        assert!(leftovers(directory.path()).is_empty(), "{what}");
    }
    assert!(!layer.is_empty());
}

#[test]
fn a_manifest_by_digest_must_have_it() {
    let recipe = Recipe::small("x");
    let fake = Fake::start(honest(&recipe));
    let directory = temporary();
    let other = crate::image::digest(b"other");
    let name = format!("{}/x@{other}", fake.address);
    let result = pull(plain(directory.path(), &fake.address), request(&name));
    assert!(matches!(result, Err(PullError::Refused(_))), "{result:?}");
}

#[test]
fn a_busy_registry_is_asked_again_and_a_dead_one_given_up() {
    for status in [429, 503] {
        let whole = honest(&Recipe::small("x"));
        let count = AtomicUsize::new(0);
        let fake = Fake::start(
            move |seen| match count.fetch_add(1, Ordering::Relaxed) < 2 {
                true => Reply::status(status).header("Retry-After", "1"),
                false => whole(seen),
            },
        );
        let directory = temporary();
        let name = format!("{}/x", fake.address);
        pull(plain(directory.path(), &fake.address), request(&name)).unwrap();
    }
    let fake = Fake::start(|_| Reply::status(500));
    let directory = temporary();
    let name = format!("{}/x", fake.address);
    let result = pull(plain(directory.path(), &fake.address), request(&name));
    assert!(
        matches!(result, Err(PullError::Unreachable(_))),
        "{result:?}"
    );
    assert_eq!(fake.seen("/v2/").len(), 4);
}

/// A registry that wants a token of `realm`.
fn guarded(recipe: &Recipe, realm: String) -> Fake {
    let whole = honest(recipe);
    Fake::start(
        move |seen| match seen.headers.get("authorization").map(String::as_str) {
            Some("Bearer T") => whole(seen),
            _ => Reply::status(401).header(
                "WWW-Authenticate",
                &format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:x:pull\""),
            ),
        },
    )
}

#[test]
fn a_token_is_fetched_with_the_login_or_without() {
    let server = Fake::start(|_| Reply::body(br#"{"token":"T"}"#));
    let fake = guarded(
        &Recipe::small("x"),
        format!("http://{}/token", server.address),
    );
    let directory = temporary();
    let name = format!("{}/x", fake.address);
    pull(plain(directory.path(), &fake.address), request(&name)).unwrap();
    let anonymous = server.seen("/token").pop().unwrap();
    assert_eq!(
        anonymous.path,
        "/token?service=s&scope=repository%3Ax%3Apull"
    );
    assert!(!anonymous.headers.contains_key("authorization"));
    let login = with_login(&name, &fake.address, LOGIN);
    pull(plain(directory.path(), &fake.address), login).unwrap();
    let basic = server.seen("/token").pop().unwrap();
    assert_eq!(basic.headers["authorization"], format!("Basic {LOGIN}"));
    let config = serde_json::json!({"auths": {&fake.address: {"identitytoken": "I&I"}}});
    let docker_configs = vec![config.to_string().into_bytes()];
    let identity = PullRequest {
        docker_configs,
        ..request(&name)
    };
    pull(plain(directory.path(), &fake.address), identity).unwrap();
    let posted = server.seen("/token").pop().unwrap();
    assert_eq!(posted.method, "POST");
    assert!(
        posted.body.contains("refresh_token=I%26I"),
        "{}",
        posted.body
    );
}

#[test]
fn a_login_is_not_sent_to_a_foreign_token_server_in_the_clear() {
    let fake = guarded(&Recipe::small("x"), "http://127.0.0.2:9/token".into());
    let directory = temporary();
    let name = format!("{}/x", fake.address);
    let login = with_login(&name, &fake.address, LOGIN);
    let error = pull(plain(directory.path(), &fake.address), login).unwrap_err();
    assert!(error.to_string().contains("plain HTTP"), "{error}");
}

#[test]
fn a_redirect_takes_no_credentials_along() {
    let recipe = Recipe::small("x");
    let whole = honest(&recipe);
    let storage = Fake::start(move |seen| whole(seen));
    let (whole, target) = (honest(&recipe), storage.address.clone());
    let fake = Fake::start(
        move |seen| match seen.headers.contains_key("authorization") {
            false => Reply::status(401).header("WWW-Authenticate", "Basic realm=\"r\""),
            true if seen.path.contains("/blobs/") => {
                Reply::status(307).header("Location", &format!("http://{target}{}", seen.path))
            }
            true => whole(seen),
        },
    );
    let directory = temporary();
    let name = format!("{}/x", fake.address);
    let login = with_login(&name, &fake.address, LOGIN);
    pull(plain(directory.path(), &fake.address), login).unwrap();
    let seen = storage.seen("/blobs/");
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter()
            .all(|seen| !seen.headers.contains_key("authorization"))
    );
}

#[test]
fn redirects_in_a_circle_end() {
    let fake = Fake::start(|seen| Reply::status(302).header("Location", &seen.path));
    let directory = temporary();
    let name = format!("{}/x", fake.address);
    let error = pull(plain(directory.path(), &fake.address), request(&name)).unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
}

#[test]
fn pulls_of_one_image_at_the_same_time_are_one() {
    let fake = Fake::start(honest(&Recipe::small("x")));
    let directory = temporary();
    let name = format!("{}/x", fake.address);
    run(async {
        let store = open(plain(directory.path(), &fake.address)).await;
        let (one, two) = future::zip(store.pull(request(&name)), store.pull(request(&name))).await;
        assert_eq!(one.unwrap().id, two.unwrap().id);
        assert_eq!(fake.seen("/manifests/").len(), 1);
        // A dropped pull does not keep the next one waiting.
        let dropped = async {
            future::poll_once(store.pull(request(&name))).await;
        };
        dropped.await;
        store.pull(request(&name)).await.unwrap();
    });
}

#[test]
fn progress_reaches_the_total() {
    let recipe = big();
    let fake = Fake::start(honest(&recipe));
    let directory = temporary();
    let (sender, receiver) = async_channel::bounded(100_000);
    run(async {
        let store = open(plain(directory.path(), &fake.address)).await;
        let name = format!("{}/x", fake.address);
        store
            .pull_watched(request(&name), Some(sender))
            .await
            .unwrap();
    });
    let mut last = None;
    while let Ok(progress) = receiver.try_recv() {
        last = Some(progress);
    }
    let last = last.unwrap();
    assert_eq!(last.bytes_done, last.bytes_total);
    assert_eq!(last.bytes_total as usize, recipe.packed_layers()[0].len());
}

#[test]
fn an_unreachable_mirror_falls_back_and_gets_no_login_of_the_registry() {
    let recipe = Recipe::small("x");
    let mirror = Fake::start(|_| Reply::status(404));
    let fake = Fake::start(honest(&recipe));
    let directory = temporary();
    let text = format!(
        "mirrors: {{'{0}': {{endpoint: ['http://{1}', 'http://{0}']}}}}",
        fake.address, mirror.address
    );
    let name = format!("{}/x", fake.address);
    let login = with_login(&name, &fake.address, LOGIN);
    pull(configured(directory.path(), &text), login).unwrap();
    let asked = mirror.seen("/v2/");
    assert!(!asked.is_empty());
    assert!(
        asked
            .iter()
            .all(|seen| !seen.headers.contains_key("authorization"))
    );
}
