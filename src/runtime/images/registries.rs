//! `--registry-config`: mirrors, credentials and trust of registries.
//!
//! ```text
//! mirrors:
//!   docker.io: {endpoint: ["https://mirror.lan", "http://10.0.0.2:5000"]}   tried in order, then the
//!   "*": {endpoint: [...]}                                                  registry itself
//! configs:
//!   "10.0.0.2:5000":
//!     auth: {username: u, password: p}
//!     tls: {ca_file: …, cert_file: …, key_file: …, insecure_skip_verify: false}
//! ```
//! The shape is that of k3s's registries.yaml. Plain HTTP is used only for an endpoint that says
//! `http://` here, and for a registry on a loopback address of which nothing is said here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::Uri;
use http::uri::Authority;
use rustls::ClientConfig;
use serde::Deserialize;
use serde_json::Value;

use super::content::read_bounded;
use crate::net::tls::{self, Trust, Verification};
use crate::object::yaml;
use crate::world::Credential;

/// Largest registry configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Largest certificate or key file.
const PEM_BYTES_MAX: u64 = 4 << 20;
/// What docker.io is called on the wire.
const HUB_HOST: &str = "registry-1.docker.io";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    configs: BTreeMap<String, HostConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mirror {
    endpoint: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostConfig {
    auth: Option<Login>,
    tls: TlsFiles,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: String,
    password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}, …)", self.username)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsFiles {
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    insecure_skip_verify: bool,
}

/// One place to ask for an image.
#[derive(Clone)]
pub struct Endpoint {
    /// `https://host[:port][/prefix]`, without a slash at the end.
    pub base: String,
    pub tls: Arc<ClientConfig>,
    /// From the configuration file; only ever sent here.
    pub login: Option<Credential>,
}

impl Registries {
    /// Reads a YAML or JSON file. Errors name the file and the line or the field.
    pub fn load(path: &Path) -> Result<Registries, String> {
        let named = |error: String| format!("{}: {error}", path.display());
        let bytes = read_bounded(path, FILE_BYTES_MAX).map_err(|error| named(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| named("not UTF-8".into()))?;
        Registries::parse(&text).map_err(|error| format!("{}:{error}", path.display()))
    }

    /// Errors are what follows the file's name and a colon.
    fn parse(text: &str) -> Result<Registries, String> {
        let value = yaml::parse(text).map_err(|(line, why)| format!("{line}: {why}"))?;
        match value {
            Value::Object(_) | Value::Null => {}
            _ => return Err("1: not a mapping of fields".to_owned()),
        }
        Registries::of(&value).map_err(|error| format!(" {error}"))
    }

    fn of(value: &Value) -> Result<Registries, String> {
        let section = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Value::Object(Default::default()),
            Some(section) => section.clone(),
        };
        if let Some(table) = value.as_object()
            && let Some(unknown) = table
                .keys()
                .find(|key| !matches!(key.as_str(), "mirrors" | "configs"))
        {
            return Err(format!(
                "{unknown}: unknown field, expected mirrors or configs"
            ));
        }
        let registries = Registries {
            mirrors: table("mirrors", section("mirrors"))?,
            configs: table("configs", section("configs"))?,
        };
        for (host, mirror) in &registries.mirrors {
            for (index, endpoint) in mirror.endpoint.iter().enumerate() {
                base(endpoint)
                    .map_err(|error| format!("mirrors[{host:?}].endpoint[{index}]: {error}"))?;
            }
        }
        Ok(registries)
    }

    /// Where to ask for images of `domain`, in order: mirrors, then the registry itself. Reads
    /// certificate files, so it blocks.
    pub fn endpoints(&self, domain: &str) -> Result<Vec<Endpoint>, String> {
        let mirror = self.mirrors.get(domain).or_else(|| self.mirrors.get("*"));
        let mut bases = Vec::new();
        for endpoint in mirror.map_or(&[][..], |mirror| &mirror.endpoint) {
            bases.push(base(endpoint)?);
        }
        let host = match domain {
            "docker.io" => HUB_HOST,
            other => other,
        };
        // A registry that is its own mirror was told how to be spoken to.
        if !bases
            .iter()
            .any(|base| base.split('/').nth(2) == Some(host))
        {
            let scheme = match is_loopback(host) && !self.configs.contains_key(host) {
                true => "http",
                false => "https",
            };
            bases.push(format!("{scheme}://{host}"));
        }
        bases.into_iter().map(|base| self.endpoint(base)).collect()
    }

    fn endpoint(&self, base: String) -> Result<Endpoint, String> {
        let host = base.split('/').nth(2).unwrap_or_default().to_owned();
        let config = self.configs.get(&host).cloned().unwrap_or_default();
        let at = |field: &str, error: String| format!("configs[{host:?}].tls.{field}: {error}");
        let read = |field: &str, path: &Option<String>| match path {
            None => Ok(None),
            Some(path) => read_bounded(Path::new(path), PEM_BYTES_MAX)
                .map(Some)
                .map_err(|error| at(field, format!("read {path}: {error}"))),
        };
        let chain = read("cert_file", &config.tls.cert_file)?;
        let key = read("key_file", &config.tls.key_file)?;
        let identity = match (chain, key) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            (Some(_), None) => return Err(at("key_file", "missing beside cert_file".into())),
            (None, Some(_)) => return Err(at("cert_file", "missing beside key_file".into())),
        };
        let trust = Trust {
            verification: match config.tls.insecure_skip_verify {
                true => Verification::Skip,
                false => Verification::Full,
            },
            extra_ca: read("ca_file", &config.tls.ca_file)?.unwrap_or_default(),
            identity,
            ..Trust::default()
        };
        let tls = tls::client_config(&trust).map_err(|error| at("", error))?;
        let login = config.auth.map(|login| Credential::Basic {
            username: login.username,
            password: login.password,
        });
        Ok(Endpoint { base, tls, login })
    }
}

/// Of a host with an optional port.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host().trim_matches(['[', ']']);
    name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn table<T: for<'de> Deserialize<'de>>(
    name: &str,
    section: Value,
) -> Result<BTreeMap<String, T>, String> {
    let Value::Object(section) = section else {
        return Err(format!("{name}: not a table of hosts"));
    };
    let mut table = BTreeMap::new();
    for (host, value) in section {
        let read = T::deserialize(value).map_err(|error| format!("{name}[{host:?}]: {error}"))?;
        table.insert(host, read);
    }
    Ok(table)
}

fn base(endpoint: &str) -> Result<String, String> {
    let url: Uri = endpoint
        .parse()
        .map_err(|error| format!("{endpoint:?} is no URL: {error}"))?;
    match (url.scheme_str(), url.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => {}
        _ => return Err(format!("{endpoint:?} is no http:// or https:// URL")),
    }
    let trimmed = endpoint.trim_end_matches('/');
    Ok(trimmed.strip_suffix("/v2").unwrap_or(trimmed).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_before_the_registry_itself() {
        let text = "mirrors:\n  docker.io: {endpoint: ['https://m.lan/v2/', 'http://10.0.0.2:5000']}\n  \
                    'l:5000': {endpoint: ['http://l:5000']}\n";
        let registries = Registries::parse(text).unwrap();
        let bases = |domain: &str| -> Vec<String> {
            let endpoints = registries.endpoints(domain).unwrap();
            endpoints
                .into_iter()
                .map(|endpoint| endpoint.base)
                .collect()
        };
        let hub = [
            "https://m.lan",
            "http://10.0.0.2:5000",
            "https://registry-1.docker.io",
        ];
        assert_eq!(bases("docker.io"), hub);
        assert_eq!(bases("l:5000"), ["http://l:5000"]);
        assert_eq!(bases("quay.io"), ["https://quay.io"]);
    }

    #[test]
    fn a_registry_on_a_loopback_address_is_spoken_to_in_the_clear() {
        let registries = Registries::parse("configs: {'127.0.0.1:443': {}}").unwrap();
        for (domain, scheme) in [
            ("localhost", "http"),
            ("localhost:5000", "http"),
            ("127.0.0.1:5000", "http"),
            ("127.1.2.3", "http"),
            ("[::1]", "http"),
            ("[::1]:5000", "http"),
            // Something is said of it.
            ("127.0.0.1:443", "https"),
            ("localhost.example.com:5000", "https"),
            ("127.0.0.1.example.com", "https"),
            ("128.0.0.1:5000", "https"),
            ("0.0.0.0:5000", "https"),
            ("[::2]:5000", "https"),
            ("docker.io", "https"),
        ] {
            let endpoints = registries.endpoints(domain).unwrap();
            let (found, _) = endpoints[0].base.split_once(':').unwrap();
            assert_eq!((endpoints.len(), found), (1, scheme), "{domain}");
        }
    }

    #[test]
    fn mistakes_are_named_by_field() {
        let table = [
            ("mirror: {}", "mirror: unknown field"),
            (
                "mirrors: {a: {endpoint: ['a:5000']}}",
                "mirrors[\"a\"].endpoint[0]",
            ),
            ("mirrors: {a: {endpoints: []}}", "endpoints"),
            ("configs: {a: {tls: {ca: x}}}", "configs[\"a\"]"),
            ("configs: []", "configs: not a table"),
            ("mirrors", "1: not a mapping of fields"),
            ("# none\n- mirrors: {}", "1: not a mapping of fields"),
            ("mirrors: {}\nconfigs: [", "2: "),
        ];
        for (text, named) in table {
            let error = Registries::parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
