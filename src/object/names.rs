//! Names: what Kubernetes lets objects, containers, labels and keys be called.
//!
//! Each check returns upstream's text for what is wrong (apimachinery `validation`, RFC 1123).

/// Longest RFC 1123 label, in bytes.
pub const LABEL_MAX: usize = 63;
/// Longest RFC 1123 subdomain, in bytes.
pub const SUBDOMAIN_MAX: usize = 253;

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
