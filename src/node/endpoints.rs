//! The kubelet's own port as this node opens it: its listener, its names, its configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use serde_json::json;

use super::machine;
use crate::cli::options::RunOptions;
use crate::net::certificates::Names;
use crate::os;

/// A port that is bound.
pub struct Endpoints {
    pub listener: TcpListener,
    pub address: SocketAddr,
}

impl Endpoints {
    /// `None`: not asked for, or taken by somebody else though nobody insisted on it.
    /// Errors: a port that was asked for is taken.
    pub fn open(options: &RunOptions) -> Result<Option<Endpoints>, String> {
        let Some(asked) = &options.endpoints else {
            return Ok(None);
        };
        let address = asked.address;
        if options.authentication.client_ca.is_none() {
            log::warn!(
                "no --client-ca-file: the cluster's API server has nothing to show at {address}, which \
                 refuses it logs and commands"
            );
        }
        let listener = match address.ip() {
            // As Go has it: all addresses, of both families if there are two.
            IpAddr::V4(ip) if ip.is_unspecified() => {
                let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port());
                os::tcp::listen(both).or_else(|_| os::tcp::listen(address))
            }
            _ => os::tcp::listen(address),
        };
        match listener {
            Ok(listener) => Ok(Some(Endpoints { listener, address })),
            Err(error) => {
                let text = format!(
                    "serve the kubelet's endpoints on {address}: {error}; give --port another port, or \
                     0 for none"
                );
                if asked.required {
                    return Err(text);
                }
                log::error!("{text}; the cluster reads no logs here and runs no commands");
                Ok(None)
            }
        }
    }
}

/// Under which the cluster finds the port: the Node's name and addresses.
pub fn names(options: &RunOptions, node_name: &str, address: SocketAddr) -> Names {
    let mut ips = machine::host_ips(options);
    ips.extend([
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ]);
    if !address.ip().is_unspecified() {
        ips.push(address.ip());
    }
    ips.sort();
    ips.dedup();
    let name = Some(node_name.to_owned()).filter(|name| name.is_ascii());
    Names {
        dns_names: name.into_iter().collect(),
        ips,
    }
}

/// What the cluster is asked to sign: addresses that others reach, as the Node has them.
pub fn signed_names(options: &RunOptions, node_name: &str) -> Names {
    let name = Some(node_name.to_owned()).filter(|name| name.is_ascii());
    let mut ips = machine::host_ips(options);
    ips.retain(|ip| !ip.is_loopback());
    Names {
        dns_names: name.into_iter().collect(),
        ips,
    }
}

/// `/configz`: what kubelet.config.k8s.io/v1beta1 has a field for.
pub fn configuration(options: &RunOptions) -> String {
    let seconds = |span: std::time::Duration| format!("{}s", span.as_secs_f64());
    let path =
        |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let served = options.endpoints.map(|endpoints| endpoints.address);
    let dns: Vec<String> = options.cluster_dns.iter().map(IpAddr::to_string).collect();
    let configuration = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "address": served.map(|address| address.ip().to_string()),
        "port": served.map_or(0, |address| address.port()),
        "readOnlyPort": 0,
        "staticPodPath": path(&options.pod_manifest_path),
        "staticPodURL": options.manifest_url,
        "fileCheckFrequency": seconds(options.file_check_period),
        "httpCheckFrequency": seconds(options.http_check_period),
        "nodeStatusUpdateFrequency": seconds(options.node_status_update_period),
        "serverTLSBootstrap": options.rotate_server_certificates,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "2m0s"},
            "x509": {"clientCAFile": path(&options.authentication.client_ca)},
        },
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "clusterDNS": dns,
        "clusterDomain": options.cluster_domain,
        "cgroupRoot": options.cgroup_root,
        "maxPods": options.pods_max,
        "podPidsLimit": options.pod_pids_max.map_or(json!(-1), |pids| json!(pids)),
        "podCIDR": format!("{}/{}", options.pod_cidr.address, options.pod_cidr.prefix_bits),
        "resolvConf": path(&options.resolv_conf),
        "imageGCHighThresholdPercent": options.image_gc_high_percent,
        "imageGCLowThresholdPercent": options.image_gc_low_percent,
        "imageMinimumGCAge": seconds(options.image_gc_age_min),
        "containerLogMaxSize": options.container_log_bytes_max.to_string(),
        "containerLogMaxFiles": options.container_log_files_max,
        "allowedUnsafeSysctls": options.allowed_unsafe_sysctls,
    });
    json!({ "kubeletconfig": configuration }).to_string()
}
