//! Which credentials fit an image: docker config files, as the kubelet reads them.
//!
//! Sources are tried in order (pull secrets first, then the node's own file); within one, longer
//! keys first. Source: Kubernetes pkg/credentialprovider/keyring.go, config.go.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::content::read_bounded;
use super::reference::Reference;
use crate::world::Credential;

/// Largest docker config file.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Credentials tried for one image.
const CREDENTIALS_MAX: usize = 20;

#[derive(Deserialize)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// Credentials for `reference` from several docker config documents, in the order to try them.
/// Documents that cannot be read are skipped: another may fit.
pub fn matching(documents: &[Vec<u8>], reference: &Reference) -> Vec<Credential> {
    let mut found = Vec::new();
    for document in documents {
        match entries(document) {
            // Reverse order puts a longer path before its prefix.
            Ok(entries) => found.extend(
                entries
                    .into_iter()
                    .rev()
                    .filter(|(key, _)| matches(key, reference))
                    .map(|(_, credential)| credential),
            ),
            Err(error) => log::warn!("read registry credentials: {error}; skipped"),
        }
    }
    found.dedup();
    found.truncate(CREDENTIALS_MAX);
    found
}

/// The first of the node's own files: `config.json` in each directory, then `.dockercfg`.
pub fn node_document(directories: &[PathBuf]) -> Option<Vec<u8>> {
    let names = ["config.json", ".dockercfg"];
    let paths = names.iter().flat_map(|name| {
        directories
            .iter()
            .map(move |directory| directory.join(name))
    });
    for path in paths {
        match read_bounded(&path, CONFIG_BYTES_MAX) {
            Ok(bytes) => match entries(&bytes) {
                Ok(_) => return Some(bytes),
                Err(error) => log::warn!("read {}: {error}; skipped", path.display()),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => log::debug!("read {}: {error}", path.display()),
        }
    }
    None
}

/// Keys (without scheme and API version) and credentials of one document; `auths` or, as in old
/// files, the top level.
fn entries(document: &[u8]) -> Result<BTreeMap<String, Credential>, String> {
    let value: Value = serde_json::from_slice(document)
        // The error's text could quote a secret.
        .map_err(|error| format!("not JSON at line {}", error.line()))?;
    let table = match value.get("auths") {
        Some(auths) => auths,
        None => &value,
    };
    let table = table.as_object().ok_or("not an object")?;
    let mut entries = BTreeMap::new();
    for (key, value) in table {
        if let Ok(auth) = Auth::deserialize(value)
            && let Some(credential) = credential(auth)
        {
            entries.insert(normal_key(key), credential);
        }
    }
    Ok(entries)
}

fn credential(auth: Auth) -> Option<Credential> {
    if let Some(token) = auth.identitytoken.filter(|token| !token.is_empty()) {
        return Some(Credential::IdentityToken(token));
    }
    if let Some(packed) = auth.auth.filter(|packed| !packed.is_empty()) {
        let plain = String::from_utf8(STANDARD.decode(packed.trim()).ok()?).ok()?;
        let (username, password) = plain.split_once(':')?;
        return Some(Credential::Basic {
            username: username.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
        });
    }
    let (username, password) = (auth.username?, auth.password?);
    (!username.is_empty()).then_some(Credential::Basic { username, password })
}

fn normal_key(key: &str) -> String {
    let key = key
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_matches('/');
    let path = path
        .strip_prefix("v1")
        .or_else(|| path.strip_prefix("v2"))
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(path);
    let path = path.trim_matches('/');
    match path.is_empty() {
        true => host.to_owned(),
        false => format!("{host}/{path}"),
    }
}

fn matches(key: &str, reference: &Reference) -> bool {
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let hub = reference.domain == "docker.io";
    let host_fits = host_matches(host, &reference.domain)
        || hub && (host == "index.docker.io" || host == "registry-1.docker.io");
    host_fits && reference.path.starts_with(path)
}

/// Ports equal, as many parts, each part a glob of its own.
fn host_matches(pattern: &str, host: &str) -> bool {
    let split = |text: &str| match text.rsplit_once(':') {
        Some((name, port)) => (name.to_owned(), port.to_owned()),
        None => (text.to_owned(), String::new()),
    };
    let ((pattern, pattern_port), (host, host_port)) = (split(pattern), split(host));
    let patterns: Vec<_> = pattern.split('.').collect();
    let parts: Vec<_> = host.split('.').collect();
    pattern_port == host_port
        && patterns.len() == parts.len()
        && patterns
            .iter()
            .zip(&parts)
            .all(|(pattern, part)| glob(pattern.as_bytes(), part.as_bytes()))
}

/// `*` any run, `?` any one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), None) => glob(rest, text),
        (Some((b'*', rest)), Some((_, tail))) => glob(rest, text) || glob(pattern, tail),
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((wanted, rest)), Some((found, tail))) => wanted == found && glob(rest, tail),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn users(config: Value, image: &str) -> Vec<String> {
        let reference = Reference::parse(image).unwrap();
        let found = matching(&[config.to_string().into_bytes()], &reference);
        let name = |credential| match credential {
            Credential::Basic { username, password } => format!("{username}:{password}"),
            Credential::IdentityToken(token) => token,
        };
        found.into_iter().map(name).collect()
    }

    #[test]
    fn keys_match_as_the_kubelet_matches_them() {
        let table = [
            ("gcr.io", "gcr.io/a/b", true),
            ("gcr.io/a", "gcr.io/a/b", true),
            ("gcr.io/b", "gcr.io/a/b", false),
            ("https://gcr.io/v2/", "gcr.io/a", true),
            ("https://index.docker.io/v1/", "busybox", true),
            ("*.example.io", "r.example.io/a", true),
            ("*.example.io", "example.io/a", false),
            ("*.example.io", "a.b.example.io/a", false),
            ("*.io", "r.example.io/a", false),
            ("r.example.io:5000", "r.example.io/a", false),
            ("r.example.io:5000", "r.example.io:5000/a", true),
            ("evil.io", "gcr.io/evil.io/a", false),
        ];
        for (key, image, fits) in table {
            let config = json!({"auths": {key: {"auth": STANDARD.encode("u:p:q")}}});
            assert_eq!(users(config, image) == ["u:p:q"], fits, "{key} {image}");
        }
    }

    #[test]
    fn longer_paths_are_tried_first_and_every_form_is_read() {
        let config = json!({
            "gcr.io": {"username": "host", "password": "1"},
            "gcr.io/a/b": {"identitytoken": "token"},
            "gcr.io/a": {"username": "a", "password": "2"},
            "gcr.io/none": {},
        });
        assert_eq!(users(config, "gcr.io/a/b"), ["token", "a:2", "host:1"]);
    }
}
