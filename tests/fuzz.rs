//! What strangers may send, mangled: parsers neither panic nor break their promises.
//!
//! Each target is a plain function of bytes, fit for libFuzzer too; here a mutator with a seed feeds
//! it. CI runs `ROUNDS` a target; `LOWTIDE_FUZZ_SECONDS=60` runs each for so long, and
//! `LOWTIDE_SEED=n` begins elsewhere. A failure prints seed and input.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use lowtide::apiserver::authz::PolicyFile;
use lowtide::apiserver::query::Query;
use lowtide::apiserver::request_info::RequestInfo;
use lowtide::manifest::decode;
use lowtide::net::websocket::Frame;
use lowtide::object::apply::{self, Contested, Writer};
use lowtide::object::{FieldSelector, Kind, LabelSelector, json, patch, token, yaml};
use lowtide::runtime::images::{self, Reference};
use serde_json::{Value, json};

const ROUNDS: u32 = 3_000;
const INPUT_BYTES_MAX: usize = 4096;

/// xorshift64*
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    fn mangle(&mut self, corpus: &[&str]) -> Vec<u8> {
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
        let mut bytes = corpus[self.below(corpus.len())].as_bytes().to_vec();
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
                    let other = corpus[self.below(corpus.len())].as_bytes();
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
fn fuzz(corpus: &[&str], target: impl Fn(&[u8])) {
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
            panic!("seed {seed}: {:?}", String::from_utf8_lossy(input));
        }
    };
    corpus.iter().for_each(|input| check(input.as_bytes()));
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
fn a_name_of_an_image_a_manifest_and_a_token_are_read_or_refused() {
    let hex = "ab".repeat(32);
    let name = format!("registry.example.com:5000/a/b:tag@sha256:{hex}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"a","digest":"sha256:{hex}","size":1}},
        "layers":[{{"mediaType":"b","digest":"sha256:{hex}","size":2}}]}}"#
    );
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln";
    fuzz(&[&name, "busybox", &manifest, token], |bytes| {
        let _ = images::read_document(bytes, None);
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(reference) = Reference::parse(text) {
            let again = Reference::parse(&reference.to_string());
            assert_eq!(again.ok().as_ref(), Some(&reference), "{reference}");
        }
        let _ = token::claimed_issuer(text);
    });
}
