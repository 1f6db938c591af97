//! The flags of the remote cluster.

use std::path::PathBuf;

use http::Uri;

use super::super::value;
use super::{BadValue, Given};
use crate::remote::Registration;
use crate::remote::kubeconfig::server_url;

/// How to join a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteOptions {
    /// `None`: `--api-server` alone, without credentials.
    pub kubeconfig: Option<PathBuf>,
    /// In place of the kubeconfig's; never empty without one.
    pub servers: Vec<Uri>,
    pub registration: Registration,
    pub provider_id: Option<String>,
}

/// `None`: standalone.
pub fn remote(given: &Given) -> Result<Option<RemoteOptions>, BadValue> {
    let kubeconfig = given.text("kubeconfig").map(PathBuf::from);
    let servers = given.list("api-server", server_url)?;
    let provider_id = given.text("provider-id");
    let register = given.parse("register-node", true, value::boolean)?;
    if kubeconfig.is_none() && servers.is_empty() {
        let alone = "is for a node that joins a cluster: give --kubeconfig too";
        return match given.last("provider-id").filter(|_| provider_id.is_some()) {
            Some(setting) => Err(setting.bad(alone)),
            None => Ok(None),
        };
    }
    Ok(Some(RemoteOptions {
        kubeconfig,
        servers,
        registration: match register {
            true => Registration::Own,
            false => Registration::Others,
        },
        provider_id,
    }))
}
