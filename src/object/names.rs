//! Names: what Kubernetes lets objects, containers, labels and keys be called.
//!
//! Each check returns upstream's text for what is wrong (apimachinery `util/validation`, RFC 1123),
//! without the value.

/// Longest RFC 1123 label, in bytes.
const LABEL_MAX: usize = 63;
/// Longest RFC 1123 subdomain, in bytes.
const SUBDOMAIN_MAX: usize = 253;
/// Longest port name (RFC 6335, IANA service names), in bytes.
const PORT_NAME_MAX: usize = 15;

/// A label made of any text: lower case, everything else `-`. Of a path, the last component
/// without its extension. Never empty.
pub fn label_from(text: &str) -> String {
    let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    let plain = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    };
    let mut label: String = stem.chars().map(plain).collect();
    label.truncate(LABEL_MAX);
    match label.trim_matches('-') {
        "" => "manifest".to_owned(),
        label => label.to_owned(),
    }
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// What is wrong with an RFC 1123 label (container, volume, namespace names).
pub fn label_problem(text: &str) -> Option<String> {
    if text.len() > LABEL_MAX {
        return Some(too_long(LABEL_MAX));
    }
    (!is_label(text)).then(|| {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
         and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
         regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            .to_owned()
    })
}

/// What is wrong with an RFC 1123 subdomain (object names).
pub fn subdomain_problem(text: &str) -> Option<String> {
    if text.len() > SUBDOMAIN_MAX {
        return Some(too_long(SUBDOMAIN_MAX));
    }
    (!text.split('.').all(is_label)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
         or '.', and must start and end with an alphanumeric character (e.g. 'example.com', \
         regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .to_owned()
    })
}

/// `[A-Za-z0-9]` at both ends, `-_.` between.
fn is_label_name(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    ends(bytes.first())
        && ends(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

const LABEL_NAME_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character";

/// What is wrong with the key of a label, annotation or selector: `[prefix/]name`.
pub fn qualified_name_problem(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if name.contains('/') {
        return Some(
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character with an optional DNS subdomain prefix \
             and '/' (e.g. 'example.com/MyName')"
                .to_owned(),
        );
    }
    if prefix == Some("") {
        return Some("prefix part must be non-empty".to_owned());
    }
    if let Some(problem) = prefix.and_then(subdomain_problem) {
        return Some(format!("prefix part {problem}"));
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > LABEL_MAX {
        return Some(format!("name part {}", too_long(LABEL_MAX)));
    }
    (!is_label_name(name)).then(|| {
        format!(
            "name part {LABEL_NAME_RULE} (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
             for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        )
    })
}

/// What is wrong with the value of a label.
pub fn label_value_problem(text: &str) -> Option<String> {
    if text.len() > LABEL_MAX {
        return Some(too_long(LABEL_MAX));
    }
    (!text.is_empty() && !is_label_name(text)).then(|| {
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
         '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or \
         'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            .to_owned()
    })
}

/// What is wrong with a key of a ConfigMap or Secret: it becomes a file name.
pub fn data_key_problem(text: &str) -> Option<String> {
    if text.len() > SUBDOMAIN_MAX {
        return Some(too_long(SUBDOMAIN_MAX));
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if text.is_empty() || !text.bytes().all(inner) {
        return Some(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
             'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
             '[-._a-zA-Z0-9]+')"
                .to_owned(),
        );
    }
    match text {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        dots if dots.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// What is wrong with a port's name.
pub fn port_name_problem(text: &str) -> Option<String> {
    if text.len() > PORT_NAME_MAX {
        return Some(format!("must be no more than {PORT_NAME_MAX} characters"));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !text.bytes().all(inner) {
        return Some(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        return Some("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        return Some("must not contain consecutive hyphens".to_owned());
    }
    (text.starts_with('-') || text.ends_with('-'))
        .then(|| "must not begin or end with a hyphen".to_owned())
}

/// What is wrong with the name of an environment variable: printable ASCII without `=`.
/// Source: relaxed rule, on by default since Kubernetes 1.32.
pub fn env_name_problem(text: &str) -> Option<String> {
    let plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'=';
    (!text.bytes().all(plain)).then(|| {
        "a valid environment variable name must consist only of printable ASCII characters other \
         than '='"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Option<String>;

    #[test]
    fn names_are_taken_and_refused_as_upstream_does() {
        let a64 = "a".repeat(64);
        let a16 = "a".repeat(16);
        let good: &[(Check, &[&str])] = &[
            (label_problem, &["a", "0", "my-name", "123-abc"]),
            (subdomain_problem, &["a.b-c.d", "example.com", "1.2.3.4"]),
            (qualified_name_problem, &["app", "example.com/My_Name.x"]),
            (label_value_problem, &["", "MyValue", "a_b.c-d"]),
            (data_key_problem, &[".env", "KEY_NAME", "a..b"]),
            (port_name_problem, &["http", "web-2"]),
            (env_name_problem, &["A", "a.b-c", "1", "with space"]),
        ];
        for (check, texts) in good {
            for text in *texts {
                assert_eq!(check(text), None, "{text:?}");
            }
        }
        let bad: &[(Check, &[&str])] = &[
            (label_problem, &["", "A", "-a", "a-", "a.b", "a_b", &a64]),
            (subdomain_problem, &["", "a..b", ".a", "a.", "A.b", "a/b"]),
            (
                qualified_name_problem,
                &["", "/a", "a/", "a/b/c", "-a", "A.b/c"],
            ),
            (label_value_problem, &["-a", "a b", "ä", &a64]),
            (data_key_problem, &["", ".", "..", "..a", "a/b", "a b"]),
            (port_name_problem, &["80", "a--b", "-a", "A", &a16]),
            (env_name_problem, &["a=b", "a\n", "ä"]),
        ];
        for (check, texts) in bad {
            for text in *texts {
                assert!(check(text).is_some(), "{text:?}");
            }
        }
    }

    #[test]
    fn a_label_can_be_made_of_any_file_name() {
        for (text, label) in [
            ("/m/My_App.v2.yaml", "my-app-v2"),
            ("web.json", "web"),
            ("/m/___", "manifest"),
            ("", "manifest"),
            ("http://host/pods", "pods"),
        ] {
            assert_eq!(label_from(text), label);
            assert_eq!(label_problem(&label_from(text)), None);
        }
    }
}
