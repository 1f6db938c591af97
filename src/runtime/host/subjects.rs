//! What statistics are read of: pods and containers that run, with their places.

use super::{Host, HostRuntime, instance};
use crate::runtime::sandbox::record::{ContainerPhase, SandboxPhase};
use crate::runtime::stats::subjects::{PodSubject, Subject};
use crate::runtime::volumes;
use crate::world::{NamespaceMode, Uid};

impl HostRuntime {
    /// Every pod whose sandbox is ready. No system calls.
    pub fn subjects(&self) -> Vec<PodSubject> {
        let uids = self.0.mirror.uids();
        uids.iter()
            .filter_map(|uid| subject(&self.0, uid))
            .collect()
    }
}

fn subject(host: &Host, uid: &Uid) -> Option<PodSubject> {
    let read = host.mirror.read(uid, |pod| {
        let record = pod.sandbox.as_ref()?;
        let SandboxPhase::Ready { pause } = &record.phase else {
            return None;
        };
        let config = &record.config;
        let running = pod.containers.values().filter_map(|record| {
            let ContainerPhase::Started { started } = record.phase else {
                return None;
            };
            Some(Subject {
                name: record.name.clone(),
                id: record.id.clone(),
                image: record.image.clone(),
                cgroup: record.cgroup.clone(),
                started,
                layer: host.layout.writable_layer(instance(uid, record)),
                logs: record.log.parent()?.to_owned(),
            })
        });
        Some(PodSubject {
            uid: uid.clone(),
            namespace: config.namespace.clone(),
            name: config.name.clone(),
            cgroup: host.cgroups.pod_path(config.cgroup.qos, uid),
            started: record.created,
            pause: match config.namespaces.network {
                NamespaceMode::Host => None,
                NamespaceMode::Pod | NamespaceMode::Container => Some(*pause),
            },
            containers: running.collect(),
            layers: host.layout.writable_layers(uid),
            logs: host.layout.pod_logs(&config.namespace, &config.name, uid),
            empty_dirs: volumes::empty_dirs(&host.layout.root, uid),
        })
    });
    read.flatten()
}
