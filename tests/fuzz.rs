//! What strangers may send, mangled: parsers neither panic nor break their promises.
//!
//! Each target is a plain function of bytes, fit for libFuzzer too; here a mutator with a seed feeds
//! it. CI runs `ROUNDS` a target; `LOWTIDE_FUZZ_SECONDS=60` runs each for so long, and
//! `LOWTIDE_SEED=n` begins elsewhere. A failure prints seed and input.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use bytes::Bytes;
use futures_lite::{AsyncRead, AsyncWrite, StreamExt};
use http::Method;
use lowtide::apiserver::authz::PolicyFile;
use lowtide::apiserver::query::Query;
use lowtide::apiserver::request_info::RequestInfo;
use lowtide::manifest::decode;
use lowtide::net::spdy::frame::{self, Control, Head, More};
use lowtide::net::spdy::headers::{Deflater, Headers, Inflater};
use lowtide::net::websocket::{Encoding, Frame};
use lowtide::object::apply::{self, Contested, Writer};
use lowtide::object::{FieldSelector, Kind, LabelSelector, json, patch, protobuf, token, yaml};
use lowtide::remote::kubeconfig;
use lowtide::runtime::images::{self, Reference};
use serde_json::{Value, json};

const ROUNDS: u32 = 3_000;
const INPUT_BYTES_MAX: usize = 8192;

/// xorshift64*
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn mangle<C: AsRef<[u8]>>(&mut self, corpus: &[C]) -> Vec<u8> {
        const WORDS: [&str; 20] = [
            "\n",
            "---\n",
            "- ",
            ": ",
            "{",
            "[",
            "]",
            "}",
            "\"",
            "&a ",
            "*a",
            "/",
            "..",
            "%2e",
            "%",
            "\0",
            "null",
            "-1",
            "9223372036854775808",
            "\u{feff}",
        ];
        let mut bytes = corpus[self.below(corpus.len())].as_ref().to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let end = at + self.below(bytes.len() + 1 - at);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let part = bytes[at..end].repeat(1 + self.below(3));
                    bytes.splice(at..at, part);
                }
                3 => {
                    let other = corpus[self.below(corpus.len())].as_ref();
                    let from = self.below(other.len());
                    bytes.splice(at..end, other[from..].iter().copied());
                }
                _ => {
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(at..at, word.bytes());
                }
            }
            bytes.truncate(INPUT_BYTES_MAX);
        }
        bytes
    }
}

/// Feeds `target`; the corpus itself comes first, as it is.
fn fuzz<C: AsRef<[u8]>>(corpus: &[C], target: impl Fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("LOWTIDE_SEED").unwrap_or(1);
    let seconds = number("LOWTIDE_FUZZ_SECONDS");
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    #[allow(
        clippy::disallowed_methods,
        reason = "how long, on a person's wish only"
    )]
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut rounds = 0;
    let check = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
            panic!("seed {seed}: {}", input.escape_ascii());
        }
    };
    corpus.iter().for_each(|input| check(input.as_ref()));
    loop {
        #[allow(
            clippy::disallowed_methods,
            reason = "how long, on a person's wish only"
        )]
        let over = until.map_or(rounds >= ROUNDS, |until| Instant::now() >= until);
        if over {
            return;
        }
        check(&dice.mangle(corpus));
        rounds += 1;
    }
}

const POD: &str = r#"apiVersion: v1
kind: Pod
metadata:
  name: web
  labels: {app: web, tier: "1"}
spec:
  containers:
  - name: web
    image: busybox:1
    env:
    - {name: A, value: "1"}
    ports: [{containerPort: 80, protocol: TCP}]
  volumes: [{name: v, emptyDir: {}}]
"#;

fn pod() -> Value {
    yaml::parse(POD).expect("a pod")
}

#[test]
fn a_manifest_yields_objects_or_lines() {
    let list = "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[{\"apiVersion\":\"v1\",\
                \"kind\":\"Secret\",\"metadata\":{\"name\":\"s\"},\"data\":{\"a\":\"YQ==\"}}]}";
    let bomb = "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n";
    fuzz(&[POD, list, bomb], |bytes| {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
        for found in decode::decode(bytes) {
            assert!(
                (1..=lines.max(1)).contains(&found.line),
                "line {}",
                found.line
            );
            let at = found.line_of("spec.containers[0].image");
            assert!((1..=lines.max(1)).contains(&at), "line {at}");
            if let Ok(object) = found.outcome {
                let again = decode::decode(object.to_string().as_bytes())
                    .remove(0)
                    .outcome;
                assert_eq!(again, Ok(object), "as JSON it is the same");
            }
        }
    });
}

#[test]
fn a_patch_gives_an_object_or_an_error() {
    let json_patch = r#"[{"op":"test","path":"/kind","value":"Pod"},{"op":"copy","from":"/spec",
        "path":"/spec/containers/0"},{"op":"add","path":"/a~1b","value":[1]},
        {"op":"move","from":"/metadata/labels","path":"/x"},{"op":"remove","path":"/spec/0"}]"#;
    let strategic = r#"{"spec":{"$setElementOrder/containers":[{"name":"web"}],"containers":[
        {"name":"web","image":"x","$patch":"merge","ports":[{"containerPort":80,"$patch":"delete"}]},
        {"$patch":"replace"}],"volumes":[{"name":"v","emptyDir":null,"$retainKeys":["name"]}]}}"#;
    let applied = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","labels":{"a":"b"}},
        "spec":{"containers":[{"name":"web","image":"y"},{"name":"b"}]}}"#;
    let mut live = pod();
    let writer = |manager| Writer {
        manager,
        subresource: "",
        time: "2026-01-01T00:00:00Z",
    };
    apply::record_update(Kind::Pod, None, &mut live, &writer("make"));
    fuzz(&[json_patch, strategic, applied], |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let Ok((value, _)) = json::parse_lenient(text, yaml::DEPTH_MAX) else {
            return;
        };
        // However it copies itself, a small patch makes no large object.
        let bounded = |result: Value| {
            assert!(result.to_string().len() < 64 << 20, "too large");
            result
        };
        let _ = patch::json_patch(live.clone(), &value).map(bounded);
        let _ = patch::merge_patch(live.clone(), value.clone()).map(bounded);
        if let Ok(once) = patch::strategic_merge(Kind::Pod, live.clone(), value.clone()) {
            bounded(once);
        }
        for contested in [Contested::Refuse, Contested::Take] {
            let by = writer("fuzz");
            let first = apply::apply(Kind::Pod, Some(&live), &value, &by, contested);
            if let Ok(first) = first {
                let again = apply::apply(Kind::Pod, Some(&first), &value, &by, contested);
                assert_eq!(again.as_ref(), Ok(&first), "an apply is idempotent");
            }
        }
    });
}

#[test]
fn a_copying_patch_is_bounded() {
    let copies = (0..5_000).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/a/{n}")}));
    let patch = Value::Array(copies.collect());
    let small = json!({"a": {"b": "x".repeat(1000)}});
    let refused = patch::json_patch(small, &patch);
    assert!(refused.is_err(), "doubling 5,000 times");
}

#[test]
fn a_selector_selects_or_is_refused() {
    let corpus = [
        "a=b,c!=d",
        "x in (a,b),!y,z",
        "a notin (b)",
        "status.phase=Running,metadata.name!=x",
    ];
    let object = pod();
    fuzz(&corpus, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(selector) = LabelSelector::parse(text) {
            assert!(!selector.is_everything() || selector.matches(&object));
        }
        if let Ok(selector) = FieldSelector::parse(Kind::Pod, text) {
            assert!(!selector.is_everything() || selector.matches(&object));
        }
    });
}

#[test]
fn a_path_is_straight_or_refused() {
    let corpus = [
        "/api/v1/namespaces/default/pods/web/log?follow=true&tailLines=1",
        "/apis/coordination.k8s.io/v1/leases?watch=1&resourceVersion=5",
        "/api/v1/namespaces/a%2Fb/pods",
        "/api/v1/../../x",
        "/healthz",
        "//api//v1",
    ];
    fuzz(&corpus, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let Ok(query) = Query::parse(query) else {
            return;
        };
        for method in [Method::GET, Method::POST, Method::DELETE] {
            if let Ok(info) = RequestInfo::parse(&method, path, &query) {
                let inside = info.path.trim_start_matches('/').split('/');
                let crooked = inside.filter(|part| matches!(*part, "." | ".."));
                assert_eq!(crooked.count(), 0, "{info:?}");
            }
        }
    });
}

#[test]
fn a_policy_line_is_a_rule_or_an_error_with_its_line() {
    let corpus = [
        r#"{"user":"a","resource":"pods","readonly":true}"#,
        "{\"apiVersion\":\"abac.authorization.kubernetes.io/v1beta1\",\"kind\":\"Policy\",\
         \"spec\":{\"group\":\"*\",\"nonResourcePath\":\"/x*\"}}",
        "# a comment\n\n{\"user\":\"*\"}\n{\"user\":\"b\",\"namespace\":\"c\"}",
    ];
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let path = directory
        .as_ref()
        .expect("a directory")
        .path()
        .join("policy");
    fuzz(&corpus, |bytes| {
        std::fs::write(&path, bytes).expect("written");
        if let Err(error) = PolicyFile::open(Some(&path)) {
            assert!(error.contains("policy"), "{error}");
        }
    });
}

#[test]
fn a_frame_says_the_same_again() {
    fuzz(
        &[
            "\0stdin",
            "\u{1}out",
            "\u{4}{\"Width\":80,\"Height\":25}",
            "\u{7f}\0",
        ],
        |bytes| {
            let decoded = Frame::decode(&Bytes::copy_from_slice(bytes));
            if let Some(frame) = decoded {
                let again = Frame::decode(&frame.encode().into());
                assert_eq!(format!("{again:?}"), format!("{:?}", Some(frame)));
            }
        },
    );
}

#[test]
fn a_name_of_an_image_a_manifest_a_token_and_a_kubeconfig_are_read_or_refused() {
    let hex = "ab".repeat(32);
    let name = format!("registry.example.com:5000/a/b:tag@sha256:{hex}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"sha256:{hex}","size":1}},
        "layers":[{{"mediaType":"b","digest":"sha256:{hex}","size":2}}]}}"#
    );
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln";
    let config = "{current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
        clusters: [{name: c, cluster: {server: 'https://h:6443', insecure-skip-tls-verify: true}}],
        users: [{name: u, user: {token: t, exec: {command: x, args: [a], apiVersion: v1}}}]}";
    fuzz(&[&name, "busybox", &manifest, token, config], |bytes| {
        let _ = images::read_document(bytes, None);
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(reference) = Reference::parse(text) {
            let again = Reference::parse(&reference.to_string());
            assert_eq!(again.ok().as_ref(), Some(&reference), "{reference}");
        }
        let _ = token::claimed_issuer(text);
        let _ = kubeconfig::parse(Path::new("/k"), text, &[]);
    });
}

/// A connection's worth: a stream opened with headers, data on it, its end.
fn spdy() -> Vec<Vec<u8>> {
    let mut deflater = Deflater::default();
    let headers = Headers::of(&[("streamtype", "stdin"), ("port", "80")]);
    let (stream, more) = (1, More::Follows);
    let opened = Control::Open {
        stream,
        more,
        headers: headers.clone(),
    };
    let mut all = vec![opened.encode(&mut deflater)];
    let reply = Control::Reply {
        stream,
        more,
        headers,
    };
    all.push(reply.encode(&mut deflater));
    let data = [&frame::data_head(1, More::Last, 5)[..], b"hello"].concat();
    all.push(data);
    let reset = Control::Reset { stream, reason: 5 };
    for control in [reset, Control::Ping(1), Control::GoAway { last: 1 }] {
        all.push(control.encode(&mut deflater));
    }
    all.insert(0, all.concat());
    all
}

#[test]
fn a_spdy_frame_says_the_same_again_and_none_is_made_of_nothing() {
    fuzz(&spdy(), |bytes| {
        if let Ok(frames) = frame::decode_all(bytes) {
            assert!(frames <= bytes.len() / 8, "{frames} frames");
        }
        let Some((head, body)) = bytes.split_first_chunk::<8>() else {
            return;
        };
        let Ok(Head::Control { kind, more, .. }) = Head::decode(*head) else {
            return;
        };
        let Ok(Some(control)) = Control::decode(kind, more, body, &mut Inflater::default()) else {
            return;
        };
        let encoded = control.encode(&mut Deflater::default());
        let (head, body) = encoded.split_first_chunk::<8>().expect("a head");
        let Ok(Head::Control { kind, more, .. }) = Head::decode(*head) else {
            panic!("{control:?}");
        };
        let again = Control::decode(kind, more, body, &mut Inflater::default());
        // A flag of a kind that has none is forgotten.
        assert_eq!(again, Ok(Some(control)));
    });
}

/// A peer who has said this, and hears nothing.
struct Said(io::Cursor<Vec<u8>>);

impl AsyncRead for Said {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(io::Read::read(&mut self.0, into))
    }
}

impl AsyncWrite for Said {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A client's frame: masked with zeros.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short one") | 0x80;
    [&[opcode, length, 0, 0, 0, 0][..], payload].concat()
}

#[test]
fn what_comes_over_a_web_socket_is_a_frame_of_ours_or_nothing() {
    let corpus = [
        masked(0x82, b"\0hello"),
        masked(0x81, b"0aGVsbG8="),
        masked(0x82, b"\x04{\"Width\":80,\"Height\":25}"),
        [masked(0x02, b"\0he"), masked(0x80, b"llo")].concat(),
        [masked(0x89, b"ping"), masked(0x88, b"\x03\xe8")].concat(),
    ];
    fuzz(&corpus, |bytes| {
        let said = Said(io::Cursor::new(bytes.to_vec()));
        let config = WebSocketConfig::default().max_message_size(Some(INPUT_BYTES_MAX));
        let taken = async {
            let mut socket =
                WebSocketStream::from_raw_socket(said, Role::Server, Some(config)).await;
            let mut taken = 0;
            while let Some(Ok(message)) = socket.next().await {
                for protocol in [
                    "v5.channel.k8s.io",
                    "v4.channel.k8s.io",
                    "base64.channel.k8s.io",
                ] {
                    let Some(content) = Encoding::of(protocol).bytes(message.clone()) else {
                        continue;
                    };
                    taken += content.len();
                    if let Some(frame) = Frame::decode(&content) {
                        let again = Frame::decode(&frame.encode().into());
                        assert_eq!(format!("{again:?}"), format!("{:?}", Some(frame)));
                    }
                }
            }
            taken
        };
        let taken = futures_lite::future::block_on(taken);
        assert!(taken <= 3 * bytes.len(), "{taken} bytes of {}", bytes.len());
    });
}

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("a short one");
    assert!(length < 0x80, "one byte tells the length");
    [&[number << 3 | 2, length][..], content].concat()
}

fn unknown(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let types = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &types), field(2, raw)].concat()
}

#[test]
fn a_protobuf_body_is_an_object_of_bounded_size_or_an_error() {
    let container = [field(1, b"web"), field(2, b"busybox:1")].concat();
    let metadata = [
        field(1, b"web"),
        field(11, &[field(1, b"app"), field(2, b"x")].concat()),
    ];
    let pod = [
        field(1, &metadata.concat()),
        field(2, &field(2, &container)),
    ]
    .concat();
    let secret = [
        field(1, &field(1, b"s")),
        field(2, &[field(1, b"k"), field(2, b"v")].concat()),
    ];
    let options = [&[0x08, 0x1e][..], &field(2, &field(1, b"uid"))].concat();
    let corpus = [
        unknown("v1", "Pod", &pod),
        unknown("v1", "Secret", &secret.concat()),
        unknown("v1", "DeleteOptions", &options),
        unknown(
            "coordination.k8s.io/v1",
            "Lease",
            &field(2, &field(1, b"pi")),
        ),
    ];
    for body in &corpus {
        assert!(protobuf::decode(body).is_ok(), "{}", body.escape_ascii());
    }
    fuzz(&corpus, |bytes| {
        if let Ok(object) = protobuf::decode(bytes) {
            let size = object.to_string().len();
            // Base64 and names: a byte on the wire is at most a short field of an object.
            assert!(
                size < 1_000 + 200 * bytes.len(),
                "{size} of {}",
                bytes.len()
            );
            assert_eq!(protobuf::decode(bytes).as_ref(), Ok(&object));
        }
    });
}

/// One entry of an archive: head, content, padding.
fn entry(kind: u8, name: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut head = [0; 512];
    head[..name.len()].copy_from_slice(name);
    head[100..108].copy_from_slice(b"0000644\0");
    head[108..116].copy_from_slice(b"0000000\0");
    head[116..124].copy_from_slice(b"0000000\0");
    head[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    head[136..148].copy_from_slice(b"00000000000\0");
    head[156] = kind;
    head[157..157 + link.len()].copy_from_slice(link);
    head[257..265].copy_from_slice(b"ustar\x0000");
    let mut all = [&head[..], content].concat();
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

/// Mangled heads get the sum that they should have, or nothing would be read behind it.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for head in bytes.chunks_exact_mut(512) {
        if head[257..262] == *b"ustar" {
            head[148..156].fill(b' ');
            let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
            head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

#[test]
fn an_archive_stays_in_its_directory() {
    let long = [
        entry(b'L', b"././@LongLink", b"", b"long/name"),
        entry(b'0', b"x", b"", b"1"),
    ];
    let pax = [
        entry(b'x', b"p", b"", b"16 path=../../o\n"),
        entry(b'0', b"y", b"", b"22"),
    ];
    let links = [
        entry(b'2', b"out", b"../../outside", b""),
        entry(b'0', b"out/file", b"", b"hostile"),
        entry(b'1', b"hard", b"../outside/file", b""),
    ];
    let tree = [
        entry(b'5', b"a/", b"", b""),
        entry(b'0', b"a/b", b"", b"text"),
        entry(b'1', b"a/c", b"a/b", b""),
        entry(b'2', b"a/d", b"b", b""),
        entry(b'0', b"a/.wh.b", b"", b""),
        entry(b'0', b"../outside/file", b"", b"hostile"),
    ];
    let corpus = [tree.concat(), links.concat(), long.concat(), pax.concat()];
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let place = place.expect("a directory");
    let (into, outside) = (place.path().join("into"), place.path().join("outside"));
    fs::create_dir(&outside).expect("made");
    fs::write(outside.join("file"), "ours").expect("written");
    fs::create_dir(&into).expect("made");
    let good = images::unpack(
        &*summed(&tree[..5].concat()),
        &into,
        &images::Limits::default(),
    );
    assert!(good.is_ok() && into.join("a/c").is_file(), "{good:?}");
    fs::remove_dir_all(&into).expect("removed");
    fuzz(&corpus, |bytes| {
        fs::create_dir(&into).expect("made");
        let limits = images::Limits {
            bytes_max: 1 << 20,
            reserve_bytes: 0,
            ..images::Limits::default()
        };
        let _ = images::unpack(&*summed(bytes), &into, &limits);
        fs::remove_dir_all(&into).expect("removed");
        assert_eq!(
            fs::read(outside.join("file")).expect("it is there"),
            b"ours"
        );
        for (directory, entries) in [(place.path(), 1), (&outside, 1)] {
            let found = fs::read_dir(directory).expect("listed").count();
            assert_eq!(found, entries, "{}", directory.display());
        }
    });
}
