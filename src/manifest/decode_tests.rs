use serde_json::{Value, json};

use super::decode;

fn values(text: &str) -> Vec<Value> {
    decode(text.as_bytes())
        .into_iter()
        .map(|decoded| decoded.outcome.expect(text))
        .collect()
}

fn errors(text: &str) -> Vec<(u32, String)> {
    decode(text.as_bytes())
        .into_iter()
        .filter_map(|decoded| Some((decoded.line, decoded.outcome.err()?)))
        .collect()
}

#[test]
fn yaml_means_what_go_yaml_means() {
    for (text, value) in [
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("0x1f", json!(31)),
        ("yes", json!(true)),
        ("Off", json!(false)),
        ("\"yes\"", json!("yes")),
        ("'0644'", json!("0644")),
        ("1e3", json!(1000.0)),
        ("~", json!(null)),
        ("", json!(null)),
        ("2001-01-01", json!("2001-01-01")),
        ("1.10", json!(1.1)),
        ("|\n    a\n    b", json!("a\nb\n")),
    ] {
        let text = format!("apiVersion: v1\nkind: ConfigMap\nx: {text}\n");
        assert_eq!(values(&text)[0]["x"], value, "{text}");
    }
}

#[test]
fn merge_keys_and_number_keys_work() {
    let text =
        "apiVersion: v1\nkind: ConfigMap\nbase: &b {a: 1}\nx:\n  <<: *b\n  c: 2\ndata:\n  1: one\n";
    let value = &values(text)[0];
    assert_eq!(value["x"], json!({"a": 1, "c": 2}));
    assert_eq!(value["data"]["1"], "one");
}

#[test]
fn every_document_knows_its_first_line() {
    let text = "\u{feff}# head\n---\n# c\napiVersion: v1\nkind: Pod\n---\n---\n\n{\"apiVersion\": \"v1\", \"kind\": \"Secret\"}\n...\n--- # x\napiVersion: v1\nkind: ConfigMap\n";
    let lines: Vec<u32> = decode(text.as_bytes()).iter().map(|d| d.line).collect();
    let kinds: Vec<Value> = values(text).iter().map(|v| v["kind"].clone()).collect();
    assert_eq!(kinds, ["Pod", "Secret", "ConfigMap"]);
    assert_eq!(lines, [4, 9, 11]);
}

#[test]
fn lists_are_opened() {
    let text =
        "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n";
    let names: Vec<Value> = values(text)
        .iter()
        .map(|v| v["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(values(text)[1]["kind"], "Pod");
    let accounts = "apiVersion: v1\nkind: ServiceAccountList\nitems:\n- metadata: {name: a}\n---\n\
                    apiVersion: v1\nkind: Namespace\nmetadata: {name: plant}\n";
    let kinds: Vec<Value> = values(accounts).iter().map(|v| v["kind"].clone()).collect();
    assert_eq!(kinds, ["ServiceAccount", "Namespace"]);
    assert!(decode(b"apiVersion: v1\nkind: List\n").is_empty());
    let lines: Vec<u32> = decode(text.as_bytes()).iter().map(|d| d.line).collect();
    assert_eq!(lines, [4, 5]);
    let nested = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List}\n- {apiVersion: v1, kind: Secret}\n";
    let decoded = decode(nested.as_bytes());
    assert_eq!(decoded.len(), 2);
    assert!(
        decoded[0]
            .outcome
            .as_ref()
            .is_err_and(|e| e.starts_with("items[0]: "))
    );
    assert!(decoded[1].outcome.is_ok());
}

#[test]
fn what_cannot_be_used_is_refused_with_its_line() {
    for (text, line, message) in [
        ("apiVersion: v1\nkind: Pod\nkind: Pod\n", 3, "duplicate"),
        ("apiVersion: v1\nkind: Pod\n---\na: b\n c: d\n", 5, ""),
        ("kind: Pod\n", 1, "apiVersion: Required value"),
        ("apiVersion: v1\n", 1, "kind: Required value"),
        (
            "\n\napiVersion: apps/v1\nkind: Deployment\n",
            4,
            "apps/v1 Deployment is not read",
        ),
        ("just words\n", 1, "not an object"),
        ("- a\n", 1, "not an object"),
        (
            "{\"apiVersion\": \"v1\",\n\"kind\": \"Pod\",\n\"kind\": \"Pod\"}",
            3,
            "duplicate key \"kind\"",
        ),
        ("{\"apiVersion\": \"v1\"}}", 1, "trailing"),
        ("{\"apiVersion\": \"v1\"", 1, "EOF"),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].0, line, "{text}: {found:?}");
        assert!(found[0].1.contains(message), "{text}: {found:?}");
        assert!(!found[0].1.contains('\n'), "{found:?}");
        // It would be counted from the start of the document.
        assert!(!found[0].1.contains(" line "), "{found:?}");
    }
    let not_text = decode(b"a: b\nc: \xff\n");
    assert_eq!(not_text[0].line, 2);
    assert_eq!(not_text[0].outcome, Err("text is not UTF-8".to_owned()));
}

#[test]
fn a_broken_document_leaves_its_neighbours() {
    let text = "apiVersion: v1\nkind: Pod\n---\na: [\n---\napiVersion: v1\nkind: Secret\n";
    let good: Vec<bool> = decode(text.as_bytes())
        .iter()
        .map(|d| d.outcome.is_ok())
        .collect();
    assert_eq!(good, [true, false, true]);
}

#[test]
fn bombs_and_depth_are_refused() {
    let mut bomb =
        "apiVersion: v1\nkind: ConfigMap\na0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let item = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![item; 9].join(", "));
    }
    assert_eq!(errors(&bomb).len(), 1);
    let deep = format!("a: {}{}", "[".repeat(500), "]".repeat(500));
    assert_eq!(errors(&deep).len(), 1);
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(70), "]".repeat(70));
    assert!(errors(&deep)[0].1.contains("nested too deeply"));
    let many = "---\na: b\n".repeat(1_001);
    assert!(
        errors(&many)
            .last()
            .expect("errors")
            .1
            .contains("more than 1000 documents")
    );
}

#[test]
fn error_texts_do_not_quote_the_file() {
    let text = "root:$6$verysecrethash:19000:0:99999:7:::\n  daemon: [*:19000\n";
    for (_, message) in errors(text) {
        assert!(!message.contains("verysecret"), "{message}");
    }
}
