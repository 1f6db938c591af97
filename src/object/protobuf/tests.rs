use super::*;

/// One item of bytes.
fn item(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a short one");
    [&[number << 3 | 2, length], bytes].concat()
}

fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [item(1, api_version.as_bytes()), item(2, kind.as_bytes())].concat();
    let content = [item(1, &type_meta), item(2, raw)].concat();
    [MAGIC, &content].concat()
}

#[test]
fn a_config_map_is_read_as_its_json() {
    let metadata = [
        item(1, b"m"),
        item(2, b""),
        item(3, b"default"),
        item(8, b""),
        item(11, &[item(1, b"app"), item(2, b"web")].concat()),
    ];
    let entry = |value: &[u8]| [item(1, b"k"), item(2, value)].concat();
    let raw = [
        item(1, &metadata.concat()),
        item(2, &entry(b"v")),
        item(3, &entry(b"\0\xff")),
        number(4, 0),
    ];
    let expected = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": "default", "labels": {"app": "web"}},
        "data": {"k": "v"},
        "binaryData": {"k": "AP8="},
        "immutable": false,
    });
    assert_eq!(
        decode(&body("v1", "ConfigMap", &raw.concat())),
        Ok(expected)
    );
}

#[test]
fn pointers_keep_their_zeros_and_inlined_types_their_place() {
    let quantity = [item(1, b"cpu"), item(2, &item(1, b"100m"))].concat();
    let probe = [
        item(
            1,
            &item(2, &[item(1, b"/"), item(2, &number(2, 80))].concat()),
        ),
        number(2, 0),
    ];
    let container = [
        item(1, b"c"),
        item(8, &item(2, &quantity)),
        item(10, &probe.concat()),
        item(15, &[]),
    ];
    let volume = [item(1, b"v"), item(2, &item(2, &[]))].concat();
    let spec = [
        item(1, &volume),
        item(2, &container.concat()),
        number(4, 0),
        item(10, b""),
        number(11, 1),
    ];
    let raw = [item(2, &spec.concat()), item(3, &[])].concat();
    let pod = decode(&body("v1", "Pod", &raw)).expect("a pod");
    let expected = json!({
        "volumes": [{"name": "v", "emptyDir": {}}],
        "containers": [{
            "name": "c",
            "resources": {"requests": {"cpu": "100m"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}},
            "securityContext": {},
        }],
        "terminationGracePeriodSeconds": 0,
        "hostNetwork": true,
    });
    assert_eq!((&pod["spec"], &pod["status"]), (&expected, &Value::Null));
}

#[test]
fn times_and_lists_of_texts_have_forms_of_their_own() {
    let at = [0x08, 0x80, 0xf2, 0xd6, 0xca, 0x06];
    let raw = item(2, &item(3, &at));
    let lease = decode(&body("coordination.k8s.io/v1", "Lease", &raw)).expect("a lease");
    assert_eq!(lease["spec"]["acquireTime"], "2026-01-01T00:00:00.000000Z");
    let extra = [
        item(1, b"scopes"),
        item(2, &[item(1, b"a"), item(1, b"b")].concat()),
    ]
    .concat();
    let raw = item(2, &item(5, &extra));
    let review = decode(&body(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        &raw,
    ));
    assert_eq!(
        review.expect("a review")["spec"]["extra"],
        json!({"scopes": ["a", "b"]})
    );
}

#[test]
fn what_is_no_object_is_refused() {
    let many = [0x12, 0, 0x12, 0].repeat(VALUES_MAX);
    let long = {
        let mut bytes = body("v1", "ConfigMap", &[]);
        bytes.truncate(bytes.len() - 2);
        bytes.extend([0x12, 0x80, 0x80, 0x20]);
        bytes.extend(&many);
        bytes
    };
    let table = [
        (b"{}".to_vec(), "does not begin"),
        (body("v1", "Nothing", b""), "no such kind"),
        (body("v1", "Pod", &[0x08]), "broken"),
        (body("v1", "ConfigMap", &number(2, 1)), "number"),
        (long, "too many values"),
    ];
    for (bytes, why) in table {
        let error = decode(&bytes).expect_err(why);
        assert!(error.contains(why), "{why}: {error}");
    }
}

#[test]
fn no_message_contains_itself_and_all_are_known() {
    fn check(name: &str, above: &[&str], table: &mut Table) {
        assert!(!above.contains(&name), "{above:?} contains {name}");
        let fields = table.message(name).expect(name);
        let above = [above, &[name]].concat();
        for field in fields.iter() {
            if let Type::Message(below) = field.of {
                check(below, &above, table);
            }
        }
    }
    let mut table = Table::default();
    for (name, _) in table::lines() {
        check(name, &[], &mut table);
    }
}
