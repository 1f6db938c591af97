//! The way to the remote cluster, as the flags say it.

use std::path::Path;
use std::rc::Rc;

use async_executor::{LocalExecutor, Task};

use crate::cli::options::{CloudProvider, Register, RemoteOptions, RunOptions};
use crate::net::tls::Verification;
use crate::os::random::SystemRandom;
use crate::os::regular_file;
use crate::registry::Registry;
use crate::remote::http::HttpCluster;
use crate::remote::kubeconfig::{self, Settings};
use crate::remote::{self, Cloud, Registration, Remote};
use crate::world::Clock;

/// Bytes of a kubeconfig.
const KUBECONFIG_BYTES_MAX: u64 = 1 << 20;

/// Reads the kubeconfig and makes ready to follow it; `None`: the node stands alone. Nothing is
/// dialled yet. Errors: `PATH:LINE: FIELD: why`.
pub fn prepare(options: &RunOptions, clock: &Rc<dyn Clock>) -> Result<Option<Remote>, String> {
    let Some(remote) = &options.remote else {
        return Ok(None);
    };
    let settings = settings(remote)?;
    if settings.verification == Verification::Skip {
        log::warn!("the cluster's certificate is not verified: whoever answers is believed");
    }
    let cluster = Rc::new(HttpCluster::new(clock.clone(), settings));
    Ok(Some(Remote::new(
        cluster,
        clock.clone(),
        Rc::new(SystemRandom),
    )))
}

/// Follows the cluster from now on, if there is one.
pub fn follow(
    remote: &Option<Remote>,
    options: &RunOptions,
    node_name: &str,
    registry: &Registry,
    executor: &Rc<LocalExecutor<'static>>,
) -> Vec<Task<()>> {
    let (Some(remote), Some(joined)) = (remote, &options.remote) else {
        return Vec::new();
    };
    let settings = remote::Options {
        node_name: node_name.to_owned(),
        registration: match joined.register {
            Register::Node => Registration::Own,
            Register::Nothing => Registration::Others,
        },
        cloud: match joined.cloud_provider {
            CloudProvider::Nobody => Cloud::Nobody,
            CloudProvider::External => Cloud::External,
        },
        provider_id: joined.provider_id.clone(),
        sources: super::own_sources(options),
    };
    remote.start(registry.clone(), settings, executor)
}

fn settings(remote: &RemoteOptions) -> Result<Settings, String> {
    let Some(path) = &remote.kubeconfig else {
        return Ok(Settings::without_credentials(remote.servers.clone()));
    };
    let text = read(path).map_err(|why| format!("--kubeconfig: {}: {why}", path.display()))?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let (settings, warnings) = kubeconfig::parse(&absolute, &text, &remote.servers)
        .map_err(|why| format!("--kubeconfig: {why}"))?;
    for warning in warnings {
        log::warn!("--kubeconfig: {warning}");
    }
    Ok(settings)
}

/// Kubeconfigs are often symbolic links.
fn read(path: &Path) -> Result<String, String> {
    let bytes = regular_file::open(path)
        .and_then(|(file, _)| regular_file::read_at_most(&file, KUBECONFIG_BYTES_MAX))
        .map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or_else(|| format!("larger than {KUBECONFIG_BYTES_MAX} bytes"))?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}
