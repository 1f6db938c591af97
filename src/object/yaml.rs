//! One YAML document with go-yaml's meaning, bounded against alias bombs and deep nesting.

use serde_json::Value;

/// Nesting allowed in a document. Pods need 12; go-yaml and serde_json allow more.
pub const DEPTH_MAX: usize = 64;
/// Nodes in one document, aliases expanded: a 10 MiB file of real manifests has fewer.
const NODES_MAX: usize = 250_000;

/// Duplicate keys are errors: two readers would understand them differently. Errors carry the line,
/// from 1.
pub fn parse(text: &str) -> Result<Value, (u64, String)> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Value>(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        // What a caller of the library could do about it helps nobody here.
        let text = error.to_string();
        let text = text.split(", set DuplicateKeyPolicy").next();
        (line, text.unwrap_or_default().to_owned())
    })
}
