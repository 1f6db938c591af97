//! What probes and commands find in containers, and whom that condemns.

use std::time::Duration;

use lowtide::world::{ExecRequest, NetError, RuntimeError};

use super::{HOST_ADDRESS, Judge, final_exit};
use crate::host::Host;
use crate::kernel::{Container, Pod};
use crate::spec::Desired;

impl Judge {
    /// Whether the node has said that the container ended for good.
    pub fn has_told_the_end(&self, pod: &Desired, name: &str, image: &str) -> bool {
        let told = final_exit(name, image);
        self.past(&pod.uid, |past| past.published_exits.contains(&told))
    }

    /// What a command in a container says: `check` asks for its health, `fail` never goes well.
    pub fn executed(&self, host: &Host, request: &ExecRequest) -> Result<i32, RuntimeError> {
        let kernel = host.kernel.borrow();
        let pod = kernel.pods.get(&request.uid);
        let container =
            pod.and_then(|pod| pod.containers.iter().find(|c| c.id == request.container));
        let running = container.filter(|c| c.is_running());
        let Some(container) = running else {
            return Err(RuntimeError::NotFound(
                "exec: container is not running".to_owned(),
            ));
        };
        let well = match request.command.first().map(String::as_str) {
            Some("check") => is_well(host, container),
            Some("fail") => false,
            Some(_) | None => true,
        };
        if !well {
            self.past(&request.uid, |past| {
                past.condemned.insert(container.id.clone())
            });
        }
        Ok(i32::from(!well))
    }

    /// What a probe of an address finds; a lost probe may condemn like a failed one.
    pub fn probed(
        &self,
        host: &Host,
        address: &str,
        port: u16,
        lost: bool,
    ) -> Result<bool, NetError> {
        let kernel = host.kernel.borrow();
        let is_host = address == HOST_ADDRESS;
        let behind = |pod: &&Pod| {
            let sandbox = pod.sandbox.as_ref();
            sandbox.is_some_and(|s| s.ip.to_string() == address || (is_host && s.is_on_host()))
        };
        let listeners: Vec<&Container> = {
            let pods = kernel.pods.values().filter(behind);
            let containers = pods.flat_map(|pod| pod.containers.iter());
            containers
                .filter(|c| c.script.listens == Some(port))
                .collect()
        };
        let Some(container) = listeners.iter().find(|c| c.is_running()) else {
            // Whoever should listen there has failed its probe.
            for container in listeners {
                let uid = &container.config.uid;
                self.past(uid, |past| past.condemned.insert(container.id.clone()));
            }
            return Err(NetError::Failed("connection refused".to_owned()));
        };
        let well = is_well(host, container);
        if !well || lost {
            // On the host's address several may want one port; each is found as sick as the one
            // that answers.
            for container in &listeners {
                let uid = &container.config.uid;
                self.past(uid, |past| past.condemned.insert(container.id.clone()));
            }
        }
        Ok(well)
    }
}

fn is_well(host: &Host, container: &Container) -> bool {
    let age = host.timeline.now() - container.started.unwrap_or_default();
    container.script.is_well(Duration::from_nanos(age))
}
