//! The OpenAPI v3 document of each group version, compressed: types out of k8s-openapi, paths out
//! of the table of what is served, merge keys out of the table that patches go by.
//!
//! Source: OpenAPI 3.0; Kubernetes api/openapi-spec/v3 for extensions and what operations carry.

mod operations;
mod types;

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::compressed;
use crate::served::SERVED;

/// The Kubernetes release of the types: the feature of k8s-openapi.
const RELEASE: &str = "v1.36.0";

/// Writes `openapi.rs` with all documents, by their names in the index.
pub fn write(directory: &Path) {
    let mut table =
        String::from("/// Name in the index (`apis/GROUP/VERSION`), gzip of the JSON.\n");
    table.push_str("pub const DOCUMENTS: &[(&str, &[u8])] = &[\n");
    for (number, served) in SERVED.iter().enumerate() {
        let root = match served.group {
            "" => format!("api/{}", served.version),
            group => format!("apis/{group}/{}", served.version),
        };
        let document = json!({
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": RELEASE},
            "paths": operations::paths(served, &root),
            "components": {"schemas": types::schemas(served)},
        });
        // Found beside the table, wherever that is by then.
        let file = format!("openapi-{number}.gz");
        let text = compressed(document.to_string().as_bytes());
        fs::write(directory.join(&file), text).expect("write a schema");
        table.push_str(&format!("    ({root:?}, include_bytes!({file:?})),\n"));
    }
    table.push_str("];\n");
    fs::write(directory.join("openapi.rs"), table).expect("write the table of schemas");
}
