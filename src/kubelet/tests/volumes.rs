//! Contents of volumes.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{node, objects, pod};
use crate::kubelet::tokens::{Maker, Request, Tokens};
use crate::kubelet::volumes::volume_contents;
use crate::object::token::Minted;
use crate::world::{BootTime, FileMedium, Stamp, VolumeContent};

/// One token for the API that lasts an hour.
fn tokens() -> Tokens {
    let now = Stamp {
        boot: BootTime::from_duration(Duration::ZERO),
        wall: Timestamp::UNIX_EPOCH,
    };
    let request = Request {
        audience: String::new(),
        life_s: 3600,
    };
    let mut tokens = Tokens::default();
    tokens.renew([request].into(), Ok("u"), now, |_| {
        let minted = Minted {
            token: "header.claims.signature".to_owned(),
            issued: now.wall,
            expires: Timestamp::MAX,
        };
        Ok((minted, Maker::Owner { life_s: None }))
    });
    tokens
}

fn volume(source: Value) -> Result<VolumeContent, String> {
    let mut source = source;
    source["name"] = json!("v");
    let pod = pod(json!({
        "volumes": [source],
        "containers": [{"name": "c", "resources": {"limits": {"memory": "256Mi"}}}],
    }));
    let (volumes, errors) = volume_contents(&pod, &objects(), &node(), &tokens());
    match errors.first() {
        None => Ok(volumes.expect("a UID").volumes.remove(0).content),
        Some(error) => Err(error.message.clone()),
    }
}

fn listing(source: Value) -> Vec<(String, u32, Vec<u8>)> {
    match volume(source.clone()) {
        Ok(VolumeContent::Files { files, .. }) => files
            .into_iter()
            .map(|file| (file.path, file.mode, file.bytes))
            .collect(),
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn object_volumes_become_files() {
    let file = |path: &str, mode, bytes: &[u8]| (path.to_owned(), mode, bytes.to_vec());
    assert_eq!(
        listing(json!({"configMap": {"name": "settings", "defaultMode": 0o600}})),
        [file("level", 0o600, b"3"), file("mode", 0o600, b"fast")]
    );
    assert_eq!(
        listing(json!({"secret": {"secretName": "login", "items":
            [{"key": "raw", "path": "a/./b", "mode": 0o400}]}})),
        [file("a/b", 0o400, &[0xff, 0xfe])]
    );
    assert_eq!(
        listing(json!({"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "mem", "resourceFieldRef":
                {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}},
        ]}})),
        [
            file("labels", 0o644, b"app=\"web\"\ntier=\"a\\\"b\""),
            file("mem", 0o644, b"256")
        ]
    );
    assert_eq!(
        listing(json!({"projected": {"sources": [
            {"configMap": {"name": "settings", "items": [{"key": "mode", "path": "x"}]}},
            {"secret": {"name": "login", "items": [{"key": "password", "path": "x"}]}},
        ]}})),
        [file("x", 0o644, b"hunter2")]
    );
    assert_eq!(
        listing(json!({"secret": {"secretName": "no", "optional": true}})),
        []
    );
}

#[test]
fn volumes_that_cannot_be_had_say_why() {
    let item = |path: &str| {
        json!({"configMap": {"name": "settings", "items":
        [{"key": "mode", "path": path}]}})
    };
    let both = json!({"configMap": {"name": "settings", "items":
        [{"key": "mode", "path": "a"}, {"key": "level", "path": "a/b"}]}});
    for (source, expected) in [
        (
            json!({"configMap": {"name": "x"}}),
            "configmap \"x\" not found",
        ),
        (
            json!({"secret": {"secretName": "x"}}),
            "secret \"x\" not found",
        ),
        (
            json!({"secret": {"secretName": "login", "items": [{"key": "k", "path": "p"}]}}),
            "references non-existent secret key: k",
        ),
        (
            json!({"configMap": {"name": "settings", "items": [{"key": "k", "path": "p"}]}}),
            "configmap references non-existent config key: k",
        ),
        (item("../x"), "must not contain '..'"),
        (item("/x"), "must be relative"),
        (item("..x"), "must not start with '..'"),
        (item(""), "must name a file"),
        (both, "is both a file and a directory"),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {
                "path": "token", "audience": "vault", "expirationSeconds": 600,
            }}]}}),
            "failed to fetch token: none was made",
        ),
        (
            json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "ca"}}]}}),
            "spec.volumes[0].projected.sources[0].clusterTrustBundle is not honoured yet",
        ),
        (
            json!({"gitRepo": {"repository": "x"}}),
            "spec.volumes[0].gitRepo is not honoured",
        ),
        (
            json!({"hostPath": {"path": "/a/../b"}}),
            "must not contain '..'",
        ),
        (
            json!({"hostPath": {"path": "a"}}),
            "is not an absolute path",
        ),
        (
            json!({"hostPath": {"path": "/a", "type": "X"}}),
            "type \"X\" is unknown",
        ),
        (
            json!({"emptyDir": {"medium": "HugePages"}}),
            "is not honoured",
        ),
    ] {
        let error = volume(source.clone()).expect_err(expected);
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn memory_volumes_are_as_large_as_the_smallest_limit() {
    for (source, expected) in [
        (json!({"emptyDir": {"medium": "Memory"}}), Some(256 << 20)),
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
            Some(1 << 20),
        ),
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Ti"}}),
            Some(256 << 20),
        ),
        (
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": "0"}}),
            Some(256 << 20),
        ),
    ] {
        let content = VolumeContent::EmptyDir {
            medium: FileMedium::Tmpfs,
            size_bytes: expected,
        };
        assert_eq!(volume(source), Ok(content));
    }
    let disk = VolumeContent::EmptyDir {
        medium: FileMedium::Disk,
        size_bytes: None,
    };
    assert_eq!(
        volume(json!({"emptyDir": {"sizeLimit": "1Mi"}})),
        Ok(disk.clone())
    );
    assert_eq!(volume(json!({})), Ok(disk));
}

#[test]
fn a_token_is_readable_by_those_who_need_it() {
    let user = |id: Option<i64>| json!({"name": "c", "securityContext": {"runAsUser": id}});
    for (context, containers, mode, owner) in [
        (json!({}), vec![user(None)], 0o644, None),
        (json!({"fsGroup": 5}), vec![user(None)], 0o600, None),
        (
            json!({}),
            vec![user(Some(7)), user(Some(7))],
            0o600,
            Some(7),
        ),
        (json!({}), vec![user(Some(7)), user(Some(8))], 0o644, None),
        (json!({"runAsUser": 9}), vec![user(None)], 0o600, Some(9)),
        (
            json!({"runAsUser": 9}),
            vec![user(None), user(Some(7))],
            0o644,
            None,
        ),
    ] {
        let sources =
            json!([{"serviceAccountToken": {"path": "t/token", "expirationSeconds": 3600}}]);
        let pod = pod(json!({
            "securityContext": context,
            "containers": containers,
            "volumes": [{"name": "v", "projected": {"sources": sources}}],
        }));
        let (contents, errors) = volume_contents(&pod, &objects(), &node(), &tokens());
        assert_eq!(errors, []);
        let contents = contents.expect("a UID");
        let VolumeContent::Files { medium, files, .. } = &contents.volumes[0].content else {
            panic!("{contents:?}");
        };
        let file = &files[0];
        assert_eq!(*medium, FileMedium::Tmpfs);
        assert_eq!((&*file.path, file.mode, file.uid), ("t/token", mode, owner));
        assert_eq!(file.bytes, b"header.claims.signature");
    }
}
