//! Whether the node belongs to a cluster, and how it gets there.

use std::path::PathBuf;

use http::Uri;

use super::{BadValue, Given};
use crate::cli::value;
use crate::remote::kubeconfig::{SERVERS_MAX, server_url};

/// What is known of the way to the cluster. Files are not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOptions {
    /// `None`: no credentials; then there is a server.
    pub kubeconfig: Option<PathBuf>,
    /// Gets the first certificate; only beside `kubeconfig`, which is written then.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// In place of the kubeconfig's; tried in turn.
    pub servers: Vec<Uri>,
    pub register: Register,
    pub cloud_provider: CloudProvider,
    /// The cloud's name of this machine.
    pub provider_id: Option<String>,
}

/// Who makes the Node object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// We do, and see that it stays.
    Node,
    /// Somebody else; without it there is nothing to report to.
    Nothing,
}

/// Who knows the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloudProvider {
    Nobody,
    /// A controller of the cloud, which takes the taint off that new nodes have.
    External,
}

/// Where a provider tells the machine about itself: a JSON document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataSource {
    Url(String),
    File(PathBuf),
}

impl std::fmt::Display for MetadataSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MetadataSource::Url(url) => write!(f, "{url}"),
            MetadataSource::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What `--cloud-provider` may be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Provider {
    Nobody,
    External,
    Metadata(MetadataSource),
}

fn provider(given: &Given) -> Result<Provider, BadValue> {
    given.parse("cloud-provider", Provider::Nobody, |text| match text {
        "" => Ok(Provider::Nobody),
        "external" => Ok(Provider::External),
        path if path.starts_with('/') => {
            let path = MetadataSource::File(PathBuf::from(path));
            Ok(Provider::Metadata(path))
        }
        url if url.starts_with("http://") || url.starts_with("https://") => {
            let parsed = url.parse::<Uri>();
            parsed.map_err(|error| format!("{url:?} is not a URL: {error}"))?;
            Ok(Provider::Metadata(MetadataSource::Url(url.to_owned())))
        }
        other => Err(format!(
            "{other:?} is none of \"\", \"external\", a URL and an absolute path"
        )),
    })
}

/// `None`: nobody tells the machine anything.
pub(super) fn metadata(given: &Given) -> Result<Option<MetadataSource>, BadValue> {
    Ok(match provider(given)? {
        Provider::Metadata(source) => Some(source),
        Provider::Nobody | Provider::External => None,
    })
}

/// `None`: the node stands alone.
pub(super) fn remote(given: &Given) -> Result<Option<RemoteOptions>, BadValue> {
    let file = |name: &str| given.parse(name, None, absolute);
    let kubeconfig = file("kubeconfig")?;
    let bootstrap_kubeconfig = file("bootstrap-kubeconfig")?;
    let servers = given.list("api-server", server_url)?;
    let bad = |name: &str, why: &str| match given.last(name) {
        Some(setting) => setting.bad(why),
        None => BadValue(format!("--{name}: {why}")),
    };
    if servers.len() > SERVERS_MAX {
        return Err(bad("api-server", &format!("at most {SERVERS_MAX} servers")));
    }
    if bootstrap_kubeconfig.is_some() && kubeconfig.is_none() {
        let why = "needs --kubeconfig, the file that the result is written to";
        return Err(bad("bootstrap-kubeconfig", why));
    }
    let joined = kubeconfig.is_some() || !servers.is_empty();
    let register = given.parse("register-node", joined, value::boolean)?;
    let external = provider(given)? == Provider::External;
    let provider_id = given.text("provider-id");
    let alone = "needs a cluster: give --kubeconfig or --api-server";
    match joined {
        false if register => Err(bad("register-node", alone)),
        false if provider_id.is_some() => Err(bad("provider-id", alone)),
        false if external => Err(bad("cloud-provider", alone)),
        false => Ok(None),
        true => Ok(Some(RemoteOptions {
            kubeconfig,
            bootstrap_kubeconfig,
            servers,
            register: match register {
                true => Register::Node,
                false => Register::Nothing,
            },
            cloud_provider: match external {
                true => CloudProvider::External,
                false => CloudProvider::Nobody,
            },
            provider_id,
        })),
    }
}

/// Relative to where the command was given; what the file names is relative to the file.
fn absolute(text: &str) -> Result<Option<PathBuf>, String> {
    match text {
        "" => Ok(None),
        _ => {
            let path = std::path::absolute(text).map_err(|error| error.to_string())?;
            Ok(Some(path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags;
    use crate::cli::options::{Place, Setting};

    fn read(line: &[(&str, &str)]) -> Result<Option<RemoteOptions>, String> {
        let settings = line.iter().map(|(name, text)| Setting {
            flag: flags::find(name).expect(name),
            text: (*text).to_owned(),
            place: Place::CommandLine,
        });
        remote(&Given(settings.collect())).map_err(|error| error.0)
    }

    #[test]
    fn a_node_without_kubeconfig_and_server_stands_alone() {
        for line in [
            &[][..],
            &[("kubeconfig", ""), ("register-node", "false")],
            &[("cloud-provider", "")],
        ] {
            assert_eq!(read(line), Ok(None), "{line:?}");
        }
    }

    #[test]
    fn a_joined_node_registers_unless_told_otherwise() {
        let joined = RemoteOptions {
            kubeconfig: Some("/k".into()),
            bootstrap_kubeconfig: None,
            servers: Vec::new(),
            register: Register::Node,
            cloud_provider: CloudProvider::Nobody,
            provider_id: None,
        };
        let url = |text: &str| text.parse::<Uri>().expect("a URL");
        assert_eq!(read(&[("kubeconfig", "/k")]), Ok(Some(joined.clone())));
        let line = [
            ("kubeconfig", "/k"),
            ("bootstrap_kubeconfig", "/b"),
            ("api-servers", "https://a,http://b:8080"),
            ("master", "https://c"),
            ("register-node", "f"),
            ("cloud-provider", "external"),
            ("provider-id", "pi://1"),
        ];
        let expected = RemoteOptions {
            provider_id: Some("pi://1".to_owned()),
            bootstrap_kubeconfig: Some("/b".into()),
            servers: vec![url("https://a"), url("http://b:8080"), url("https://c")],
            register: Register::Nothing,
            cloud_provider: CloudProvider::External,
            ..joined.clone()
        };
        assert_eq!(read(&line), Ok(Some(expected)));
        let alone = RemoteOptions {
            kubeconfig: None,
            servers: vec![url("https://a")],
            ..joined
        };
        assert_eq!(read(&[("api-server", "https://a")]), Ok(Some(alone)));
    }

    #[test]
    fn metadata_come_from_a_url_or_a_file_with_a_cluster_or_without() {
        let metadata = |text: &str| {
            let setting = Setting {
                flag: flags::find("cloud-provider").unwrap(),
                text: text.to_owned(),
                place: Place::CommandLine,
            };
            let given = Given(vec![setting]);
            assert_eq!(remote(&given).map_err(|error| error.0), Ok(None));
            super::metadata(&given).expect("a provider")
        };
        let url = "http://169.254.169.254/openstack/latest/meta_data.json";
        assert_eq!(metadata(url), Some(MetadataSource::Url(url.to_owned())));
        let path = "/run/cloud-init/instance-data.json";
        assert_eq!(metadata(path), Some(MetadataSource::File(path.into())));
        assert_eq!(metadata(""), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let many = vec!["https://a"; SERVERS_MAX + 1].join(",");
        for (line, expected) in [
            (&[("api-server", "a:8080")][..], "--api-server: "),
            (&[("api-server", "https://me:pw@a")], "must not hold a user"),
            (&[("api-server", many.as_str())], "at most 16 servers"),
            (&[("bootstrap-kubeconfig", "/b")], "needs --kubeconfig"),
            (
                &[("register-node", "true")],
                "--register-node: needs a cluster",
            ),
            (
                &[("cloud-provider", "external")],
                "--cloud-provider: needs a cluster",
            ),
            (&[("cloud-provider", "aws")], "\"external\""),
            (&[("provider-id", "x")], "--provider-id: needs a cluster"),
            (
                &[("kubeconfig", "/k"), ("register-node", "maybe")],
                "--register-node: ",
            ),
        ] {
            let why = read(line).expect_err(expected);
            assert!(why.contains(expected) && !why.contains("pw"), "{why}");
        }
    }
}
