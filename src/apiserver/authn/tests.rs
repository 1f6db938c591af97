use http::HeaderValue;

use super::*;
use crate::net::certificates::{Authority, Purpose, Validity, first_certificate};

const NOW_S: i64 = 2_000_000_000;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a date")
}

struct Fixture {
    authenticator: Authenticator,
    authority: Authority,
    paths: Paths,
    own_ca: String,
    _directory: tempfile::TempDir,
}

fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("write");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).expect("chmod");
}

impl Fixture {
    fn new(anonymous: bool) -> Fixture {
        let directory = tempfile::tempdir().expect("temporary directory");
        let paths = Paths {
            client_ca: None,
            tokens: Some(directory.path().join("tokens.csv")),
            passwords: Some(directory.path().join("passwords.csv")),
        };
        write(&directory.path().join("tokens.csv"), "t1,jane,7,dev\n");
        write(&directory.path().join("passwords.csv"), "pw,joe,8\n");
        let always = Validity {
            from: at(1_000_000_000),
            until: at(4_000_000_000),
        };
        let (authority, own) = Authority::make("ca", always).expect("CA");
        let files = Files::load(&paths, &own.certificate).expect("files");
        Fixture {
            authenticator: Authenticator::new(files, None, anonymous),
            authority,
            paths,
            own_ca: own.certificate,
            _directory: directory,
        }
    }

    /// A certificate that counts for 1000 s from `NOW_S` on.
    fn certificate(&self, user: &str) -> Vec<CertificateDer<'static>> {
        let purpose = Purpose::Client {
            user: user.to_owned(),
            group: "ops".to_owned(),
        };
        let validity = Validity {
            from: at(NOW_S),
            until: at(NOW_S + 1000),
        };
        let issued = self.authority.issue(&purpose, validity).expect("issue");
        vec![first_certificate(&issued.certificate).expect("PEM")]
    }

    fn ask(&self, peer: &Peer, name: &'static str, value: &str, now_s: i64) -> Option<String> {
        let mut headers = HeaderMap::new();
        if !value.is_empty() {
            let value = HeaderValue::from_str(value).expect("header");
            headers.insert(name, value);
        }
        match self.authenticator.user(peer, &headers, at(now_s)) {
            Ok(user) => Some(format!("{} {}", user.name, user.groups.join(","))),
            Err(refusal) => {
                assert_eq!(refusal.code, http::StatusCode::UNAUTHORIZED);
                assert_eq!(refusal.message, "Unauthorized");
                None
            }
        }
    }
}

fn peer(chain: Vec<CertificateDer<'static>>) -> Peer {
    let address = "192.0.2.1:5".parse().expect("address");
    Peer::Network(Network::new(address, chain))
}

const JANE: &str = "jane dev,system:authenticated";
const JOE: &str = "joe system:authenticated";
const ANONYMOUS: &str = "system:anonymous system:unauthenticated";

/// The Authorization header: who that is with anonymous requests off, and on.
const HEADERS: &[(&str, Option<&str>, Option<&str>)] = &[
    ("", None, Some(ANONYMOUS)),
    ("Bearer t1", Some(JANE), Some(JANE)),
    ("bearer t1 ", Some(JANE), Some(JANE)),
    ("Bearer t1 x", Some(JANE), Some(JANE)),
    // The first word behind the scheme is the token, and here it is empty.
    ("Bearer  t1", None, Some(ANONYMOUS)),
    ("Bearer t2", None, None),
    ("Bearer", None, Some(ANONYMOUS)),
    ("Bearer ", None, Some(ANONYMOUS)),
    ("t1", None, Some(ANONYMOUS)),
    ("Basic am9lOnB3", Some(JOE), Some(JOE)),
    ("Basic am9lOnB4", None, None),
    ("Basic am9l", None, Some(ANONYMOUS)),
    ("Basic ###", None, Some(ANONYMOUS)),
    ("Negotiate x", None, Some(ANONYMOUS)),
];

#[test]
fn a_wrong_credential_is_nobody_even_where_anonymous_is_let_in() {
    for (anonymous, pick) in [(false, 1), (true, 2)] {
        let fixture = Fixture::new(anonymous);
        for (header, off, on) in HEADERS {
            let expected = if pick == 1 { off } else { on };
            let got = fixture.ask(&peer(Vec::new()), "authorization", header, NOW_S);
            assert_eq!(
                got.as_deref(),
                *expected,
                "{header:?}, anonymous {anonymous}"
            );
        }
    }
}

#[test]
fn browsers_carry_their_token_in_a_subprotocol() {
    let fixture = Fixture::new(true);
    let table = [
        (
            "base64url.bearer.authorization.k8s.io.dDE, v4.channel.k8s.io",
            Some(JANE),
        ),
        ("v4.channel.k8s.io", Some(ANONYMOUS)),
        ("base64url.bearer.authorization.k8s.io.", Some(ANONYMOUS)),
        ("base64url.bearer.authorization.k8s.io.dDE", None),
        (
            "base64url.bearer.authorization.k8s.io.dDI, v4.channel.k8s.io",
            None,
        ),
        (
            "base64url.bearer.authorization.k8s.io.###, v4.channel.k8s.io",
            None,
        ),
        (
            "base64url.bearer.authorization.k8s.io.dDE, base64url.bearer.authorization.k8s.io.dDE, v4",
            None,
        ),
    ];
    for (protocols, expected) in table {
        let got = fixture.ask(
            &peer(Vec::new()),
            "sec-websocket-protocol",
            protocols,
            NOW_S,
        );
        assert_eq!(got.as_deref(), expected, "{protocols}");
    }
}

#[test]
fn a_certificate_is_its_subject_until_it_ends_on_an_open_connection_too() {
    let fixture = Fixture::new(true);
    let ann = peer(fixture.certificate("ann"));
    let ask = |peer: &Peer, header: &str, now_s| fixture.ask(peer, "authorization", header, now_s);
    let known = Some("ann ops,system:authenticated");
    assert_eq!(ask(&ann, "", NOW_S).as_deref(), known);
    assert_eq!(
        ask(&ann, "Bearer t1", NOW_S + 1000).as_deref(),
        known,
        "x509 comes first"
    );
    assert_eq!(
        ask(&ann, "", NOW_S + 1001),
        None,
        "expired is not anonymous"
    );
    assert_eq!(ask(&ann, "Bearer t1", NOW_S + 1001).as_deref(), Some(JANE));
    assert_eq!(ask(&ann, "", NOW_S - 1), None);
    let stranger = peer(Fixture::new(false).certificate("ann"));
    assert_eq!(ask(&stranger, "", NOW_S), None);
    let nameless = peer(fixture.certificate(""));
    assert_eq!(ask(&nameless, "", NOW_S).as_deref(), Some(ANONYMOUS));
}

#[test]
fn files_read_anew_count_on_open_connections_and_bad_ones_are_told() {
    let fixture = Fixture::new(false);
    let ann = peer(fixture.certificate("ann"));
    assert!(fixture.ask(&ann, "authorization", "", NOW_S).is_some());
    let other = Fixture::new(false);
    let files = Files::load(&other.paths, &other.own_ca).expect("files");
    fixture.authenticator.replace(files);
    assert_eq!(fixture.ask(&ann, "authorization", "", NOW_S), None);

    let tokens = fixture.paths.tokens.clone().expect("a path");
    write(&tokens, "t1,jane\n");
    let why = Files::load(&fixture.paths, &fixture.own_ca).expect_err("bad file");
    assert!(
        why.starts_with("--token-auth-file: ") && why.contains("tokens.csv:1: 2 columns"),
        "{why}"
    );
    let no_ca = Paths {
        client_ca: Some(tokens),
        ..Paths::default()
    };
    let why = Files::load(&no_ca, "").expect_err("no certificate");
    assert!(why.contains("holds no PEM certificate"), "{why}");
}
