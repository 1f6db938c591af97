//! Image manifests, indexes and configurations: read with limits, refused when ambiguous.
//!
//! Both the OCI and the docker schema 2 forms are read; they differ in media types only. The shape
//! decides what a document is, and it must agree with the media type it claims: a document that is
//! an index to one reader and a manifest to another is refused (GHSA-77vh-xpmg-72qh).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::digest::Digest;
use super::platform::Platform;
use crate::world::ImageConfig;

/// Largest manifest or index (distribution's own limit).
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Largest image configuration.
pub const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// Most layers of one image: overlayfs stacks no more (`OVL_MAX_STACK`, 500), docker makes 127.
pub const LAYERS_MAX: usize = 250;
/// Indexes within indexes.
pub const NESTING_MAX: u32 = 3;

/// What a pull asks for, in order of preference.
pub const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
    #[serde(default)]
    pub annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    Index(Vec<Descriptor>),
    Manifest {
        config: Descriptor,
        /// Bottom first.
        layers: Vec<Descriptor>,
    },
}

/// An image configuration, as far as a node needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    pub platform: Platform,
    /// Digests of the plain layers, bottom first.
    pub diff_ids: Vec<Digest>,
    pub config: ImageConfig,
}

/// Reads a manifest or an index. `media_type`: what its descriptor or its HTTP answer claimed.
pub fn read_document(bytes: &[u8], media_type: Option<&str>) -> Result<Document, String> {
    let value: Value =
        serde_json::from_slice(bytes).map_err(|error| format!("read manifest: {error}"))?;
    let has = |field: &str| value.get(field).is_some_and(|value| !value.is_null());
    if has("fsLayers") || value.get("schemaVersion") == Some(&Value::from(1)) {
        return Err("docker schema 1 manifests are not supported: push the image again".into());
    }
    let is_index = match (has("manifests"), has("layers") || has("config")) {
        (true, true) => return Err("ambiguous manifest: both \"manifests\" and \"layers\"".into()),
        (false, false) => return Err("neither a manifest nor an index".into()),
        (is_index, _) => is_index,
    };
    let claims = [value.get("mediaType").and_then(Value::as_str), media_type];
    for claim in claims.into_iter().flatten() {
        let claims_index = MEDIA_TYPES[..2].contains(&claim);
        let claims_manifest = MEDIA_TYPES[2..].contains(&claim);
        if (is_index && claims_manifest) || (!is_index && claims_index) {
            return Err(format!(
                "ambiguous manifest: its contents are not a {claim}"
            ));
        }
    }
    let field = |name: &str| value.get(name).cloned().unwrap_or_default();
    let described = |name: &str, error: serde_json::Error| format!("read manifest {name}: {error}");
    if is_index {
        let entries = Vec::<Value>::deserialize(field("manifests"))
            .map_err(|error| described("manifests", error))?;
        // Entries of other kinds (unknown digest algorithms) are none for us.
        let entries = entries
            .into_iter()
            .filter_map(|entry| Descriptor::deserialize(entry).ok())
            .collect();
        return Ok(Document::Index(entries));
    }
    let layers = Vec::<Descriptor>::deserialize(field("layers"))
        .map_err(|error| described("layers", error))?;
    if layers.len() > LAYERS_MAX {
        return Err(format!("more than {LAYERS_MAX} layers"));
    }
    Ok(Document::Manifest {
        config: Descriptor::deserialize(field("config"))
            .map_err(|error| described("config", error))?,
        layers,
    })
}

#[derive(Deserialize)]
struct RawConfiguration {
    #[serde(flatten)]
    platform: Platform,
    rootfs: Option<RawRootfs>,
    config: Option<RawConfig>,
}

#[derive(Deserialize)]
struct RawRootfs {
    diff_ids: Option<Vec<Digest>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    working_dir: Option<String>,
    stop_signal: Option<String>,
    volumes: Option<BTreeMap<String, Value>>,
    labels: Option<BTreeMap<String, String>>,
}

/// Reads an image configuration.
pub fn read_configuration(bytes: &[u8]) -> Result<Configuration, String> {
    let read = |error| format!("read image configuration: {error}");
    let value: Value = serde_json::from_slice(bytes).map_err(read)?;
    let raw = RawConfiguration::deserialize(value).map_err(read)?;
    let config = raw.config.unwrap_or_default();
    let diff_ids = raw.rootfs.and_then(|rootfs| rootfs.diff_ids);
    let diff_ids = diff_ids.unwrap_or_default();
    if diff_ids.len() > LAYERS_MAX {
        return Err(format!("more than {LAYERS_MAX} layers"));
    }
    Ok(Configuration {
        platform: raw.platform,
        diff_ids,
        config: ImageConfig {
            user: config.user.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            stop_signal: config.stop_signal.filter(|signal| !signal.is_empty()),
            volumes: config.volumes.unwrap_or_default().into_keys().collect(),
            labels: config.labels.unwrap_or_default(),
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor() -> Value {
        json!({"mediaType": "x", "digest": Digest::of(b"").to_string(), "size": 0})
    }

    fn read(value: Value, media_type: Option<&str>) -> Result<Document, String> {
        read_document(value.to_string().as_bytes(), media_type)
    }

    #[test]
    fn a_document_that_could_be_two_things_is_refused() {
        let table = [
            (json!({"manifests": [], "layers": []}), None),
            (json!({"manifests": [], "config": descriptor()}), None),
            (json!({"manifests": [], "mediaType": MEDIA_TYPES[2]}), None),
            (
                json!({"config": descriptor(), "layers": []}),
                Some(MEDIA_TYPES[0]),
            ),
            (
                json!({"config": descriptor(), "layers": [], "mediaType": MEDIA_TYPES[1]}),
                None,
            ),
            (json!({"schemaVersion": 1, "fsLayers": []}), None),
            (json!({}), None),
            (json!([]), None),
        ];
        for (value, media_type) in table {
            assert!(read(value.clone(), media_type).is_err(), "{value}");
        }
    }

    #[test]
    fn layers_are_bounded() {
        let with = |count: usize| {
            read(
                json!({"config": descriptor(), "layers": vec![descriptor(); count]}),
                None,
            )
        };
        assert!(with(LAYERS_MAX).is_ok());
        assert!(with(LAYERS_MAX + 1).is_err());
    }

    #[test]
    fn nulls_of_go_programs_are_defaults() {
        let text = br#"{"architecture":"arm","variant":"v7","os":"linux","rootfs":{"type":"layers",
            "diff_ids":null},"config":{"Env":null,"Cmd":["sh"],"Volumes":{"/data":{}},"User":"1:2",
            "StopSignal":""}}"#;
        let read = read_configuration(text).unwrap();
        assert_eq!(read.platform.variant.as_deref(), Some("v7"));
        assert_eq!(read.config.cmd, ["sh"]);
        assert_eq!(read.config.volumes, ["/data"]);
        assert_eq!(read.config.user, "1:2");
        assert_eq!(read.config.stop_signal, None);
    }
}
