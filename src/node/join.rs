//! The way to the remote cluster, as the flags say it.

use std::rc::Rc;

use async_executor::{LocalExecutor, Task};

use super::endpoints;
use super::front::Front;
use super::parts::Parts;
use crate::cli::options::{CloudProvider, Register, RunOptions};
use crate::os::random::SystemRandom;
use crate::os::task;
use crate::registry::Registry;
use crate::remote::door::KubeconfigCluster;
use crate::remote::{self, Cloud, Doors, Registration, Remote};
use crate::world::Clock;

/// A cluster to follow.
pub struct Joined {
    pub remote: Remote,
    doors: Doors,
}

/// Reads the kubeconfig and makes ready to follow it; `None`: the node stands alone. Nothing is
/// dialled yet. Errors: `PATH:LINE: FIELD: why`; with bootstrap credentials a kubeconfig that cannot
/// be used is made anew.
pub fn prepare(options: &RunOptions, clock: &Rc<dyn Clock>) -> Result<Option<Joined>, String> {
    let Some(remote) = &options.remote else {
        return Ok(None);
    };
    let door =
        |flag, path| KubeconfigCluster::new(flag, path, remote.servers.clone(), clock.clone());
    let bootstrap = remote.bootstrap_kubeconfig.as_ref();
    let bootstrap = bootstrap.map(|path| Rc::new(door("--bootstrap-kubeconfig", path)));
    let main = match &remote.kubeconfig {
        None => KubeconfigCluster::without_credentials(remote.servers.clone(), clock.clone()),
        Some(path) => {
            let main = door("--kubeconfig", path);
            match (main.open(), &bootstrap) {
                (Ok(()), _) => {}
                (Err(why), None) => return Err(why),
                (Err(why), Some(bootstrap)) => {
                    // One that will be there later: a provisioner may be slower than we are.
                    bootstrap.open().unwrap_or_else(|why| log::error!("{why}"));
                    log::info!("{why}; the node asks the cluster for a certificate");
                }
            }
            main
        }
    };
    let main = Rc::new(main);
    Ok(Some(Joined {
        remote: Remote::new(main.clone(), clock.clone(), Rc::new(SystemRandom)),
        doors: Doors { main, bootstrap },
    }))
}

/// Follows the cluster from now on, if there is one.
pub fn follow(
    joined: &Option<Joined>,
    options: &RunOptions,
    node_name: &str,
    registry: &Registry,
    (parts, front): (&Parts, &Rc<Front>),
    executor: &Rc<LocalExecutor<'static>>,
) -> Vec<Task<()>> {
    let (Some(Joined { remote, doors }), Some(joined)) = (joined, &options.remote) else {
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
        provided_ips: options.node_ips.clone(),
        sources: super::own_sources(options),
    };
    let root = &options.root_dir;
    let mut tasks = remote.start(registry.clone(), settings, executor);
    let member = remote.stay_member(doors.clone(), &parts.world, node_name, root);
    tasks.push(task::spawn(executor, member));
    let floor = parts.floor.clone().keep(parts.world.clock.clone());
    tasks.push(task::spawn(executor, floor));
    if options.rotate_server_certificates && front.has_kubelet_port() {
        let (options, front) = (options.clone(), front.clone());
        let name = node_name.to_owned();
        let serving = remote.keep_serving(
            doors.main.clone(),
            &parts.world,
            node_name,
            Box::new(move || endpoints::signed_names(&options, &name)),
            Box::new(move |text| front.show_signed(text)),
        );
        tasks.push(task::spawn(executor, serving));
    }
    tasks
}
