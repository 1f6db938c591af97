//! What comes to know of itself while a node runs: its addresses as they change, what its provider's
//! metadata say, whether there is a network for its pods.
//!
//! ```text
//!   rtnetlink ─► another address? ─► the kubelet ─► Node, pods on the node's network
//!   nft ─► is the pod network's table gone? ─► it is written again
//!   --cni-conf-dir ─► a configuration? ─► the kubelet ─► Node, pods that wait for it
//!   --cloud-provider=URL|FILE ─► known fields ─► labels and addresses of the Node
//! ```
//! The node waits for none of them: it starts with what it has.

use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_executor::{LocalExecutor, Task};
use serde_json::Value;

use super::fetch::HttpFetch;
use super::machine;
use super::parts::Parts;
use crate::cli::options::{MetadataSource, RunOptions};
use crate::kubelet::Kubelet;
use crate::kubelet::facts::Site;
use crate::manifest::Fetch;
use crate::net::proxy::Proxies;
use crate::object::label_value_problem;
use crate::os::changes::ChangeWatch;
use crate::os::netlink::Announcements;
use crate::os::{regular_file, task};
use crate::runtime::network::{self, Network};
use crate::world::Clock;

/// A DHCP client takes an address away before it sets the next one.
const SETTLED: Duration = Duration::from_secs(1);
/// A directory that cannot be watched is looked at so often.
const UNWATCHED: Duration = Duration::from_secs(10);
/// Bytes of the metadata.
const DOCUMENT_BYTES_MAX: u64 = 256 << 10;
/// Metadata that are not there are looked for again after a second, doubling to five minutes.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// What services of several clouds want to see; the others pass them over.
const HEADERS: [(&str, &str); 3] = [
    ("Metadata", "true"),
    ("Metadata-Flavor", "Google"),
    ("Accept", "application/json"),
];

/// All of it, from now on.
pub fn follow(
    options: &RunOptions,
    kubelet: &Rc<Kubelet>,
    parts: &Parts,
    executor: &Rc<LocalExecutor<'static>>,
) -> Result<Vec<Task<()>>, String> {
    let clock = parts.world.clock.clone();
    let addresses = follow_addresses(options.clone(), kubelet.clone(), clock.clone());
    let network = parts.runtime.network();
    let rules = network::keep(network.clone(), clock.clone());
    let mut tasks = vec![
        task::spawn(executor, addresses),
        task::spawn(executor, rules),
    ];
    if let Some(directory) = options.cni_conf_dir.clone() {
        let follow = follow_pod_network(directory, network, kubelet.clone(), clock.clone());
        tasks.push(task::spawn(executor, follow));
    }
    if let Some(source) = options.metadata.clone() {
        // Such services are on the machine's own link.
        let fetch = HttpFetch::new(clock.clone(), Rc::new(Proxies::default()))?;
        let read = read_metadata(source, fetch, kubelet.clone(), clock);
        tasks.push(task::spawn(executor, read));
    }
    Ok(tasks)
}

/// Keeps the node's addresses true, unless `--node-ip` fixes them. While there is no way out at all
/// the last address stays.
async fn follow_addresses(options: RunOptions, kubelet: Rc<Kubelet>, clock: Rc<dyn Clock>) {
    if !options.node_ips.is_empty() {
        return;
    }
    let follow = async {
        let announcements = Announcements::open()?;
        loop {
            // Also once at first: the address may have come since the machine was read.
            let found = machine::host_ips(&options);
            if !found.iter().all(IpAddr::is_loopback) {
                kubelet.set_host_ips(found);
            }
            announcements.changed().await?;
            clock.sleep_until(clock.now() + SETTLED).await;
        }
    };
    let ended: std::io::Result<()> = follow.await;
    if let Err(error) = ended {
        log::warn!("follow the machine's addresses: {error}; a new one counts after a restart");
    }
}

/// Tells the kubelet what new pods can have, as configurations come, change and go. The directory is
/// made, as containerd makes it: whoever writes them may come later.
async fn follow_pod_network(
    directory: PathBuf,
    network: Arc<Network>,
    kubelet: Rc<Kubelet>,
    clock: Rc<dyn Clock>,
) {
    let mut said = false;
    loop {
        let (directory, network) = (directory.clone(), network.clone());
        let look = move || {
            let made = std::fs::create_dir_all(&directory);
            // First the watch: what changes during the look is seen.
            let watch = made.and_then(|()| ChangeWatch::new(&directory));
            let watch = watch.map_err(|error| format!("watch {}: {error}", directory.display()));
            (watch, network.state())
        };
        let (watch, state) = blocking::unblock(look).await;
        kubelet.set_pod_network(state);
        let changed = match watch {
            Ok(watch) => watch.changed().await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        if let Err(error) = changed {
            if !std::mem::replace(&mut said, true) {
                log::warn!("--cni-conf-dir: {error}; looking now and then");
            }
            clock.sleep_until(clock.now() + UNWATCHED).await;
        }
    }
}

/// Reads the metadata once they can be had.
async fn read_metadata(
    source: MetadataSource,
    fetch: HttpFetch,
    kubelet: Rc<Kubelet>,
    clock: Rc<dyn Clock>,
) {
    let mut pause = RETRY_MIN;
    loop {
        match document(&source, &fetch).await {
            Ok(document) => {
                let site = site_of(&document);
                let facts = site.labels.iter().chain(&site.addresses);
                let facts: Vec<_> = facts
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                log::info!("--cloud-provider: {source}: {}", facts.join(" "));
                return kubelet.set_site(site);
            }
            Err(why) if pause == RETRY_MIN => {
                log::warn!("--cloud-provider: {source}: {why}; trying again");
            }
            Err(why) => log::debug!("--cloud-provider: {source}: {why}"),
        }
        clock.sleep_until(clock.now() + pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

async fn document(source: &MetadataSource, fetch: &HttpFetch) -> Result<Value, String> {
    let bytes = match source {
        MetadataSource::Url(url) => {
            let headers = HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let answer = fetch.get(url, &headers, DOCUMENT_BYTES_MAX).await?;
            match answer.status {
                200 => answer.body.to_vec(),
                status => return Err(format!("the answer's status is {status}")),
            }
        }
        MetadataSource::File(path) => file(path.clone()).await?,
    };
    serde_json::from_slice(&bytes).map_err(|error| format!("no JSON: {error}"))
}

async fn file(path: PathBuf) -> Result<Vec<u8>, String> {
    let read = move || {
        let (file, _) = regular_file::open(&path)?;
        regular_file::read_at_most(&file, DOCUMENT_BYTES_MAX)
    };
    let read: std::io::Result<Option<Vec<u8>>> = blocking::unblock(read).await;
    read.map_err(|error| error.to_string())?
        .ok_or_else(|| format!("larger than {DOCUMENT_BYTES_MAX} bytes"))
}

/// What a fact is called: AWS' identity document, OpenStack, Azure, GCP, DigitalOcean, cloud-init's
/// `instance-data.json`. The first that is there counts.
const REGION: &[&str] = &["region", "v1/region", "compute/location", "cloud-region"];
const ZONE: &[&str] = &[
    "availabilityZone",
    "availability_zone",
    "availability-zone",
    "zone",
    "v1/availability_zone",
    "compute/zone",
    "instance/zone",
];
const INSTANCE_TYPE: &[&str] = &[
    "instanceType",
    "instance_type",
    "instance-type",
    "v1/instance_type",
    "compute/vmSize",
    "instance/machineType",
];
const INTERNAL_IP: &[&str] = &["privateIp", "local-ipv4", "local_ipv4"];
const EXTERNAL_IP: &[&str] = &["publicIp", "public-ipv4", "public_ipv4"];
const INTERNAL_DNS: &[&str] = &["local-hostname", "local_hostname"];
const EXTERNAL_DNS: &[&str] = &["public-hostname", "public_hostname"];

/// Source of the labels: Kubernetes well-known labels; of the addresses: core/v1 NodeAddressType.
fn site_of(document: &Value) -> Site {
    let labels = [
        ("topology.kubernetes.io/region", REGION),
        ("topology.kubernetes.io/zone", ZONE),
        ("node.kubernetes.io/instance-type", INSTANCE_TYPE),
    ];
    let addresses = [
        ("InternalIP", INTERNAL_IP),
        ("ExternalIP", EXTERNAL_IP),
        ("InternalDNS", INTERNAL_DNS),
        ("ExternalDNS", EXTERNAL_DNS),
    ];
    let found = |(name, paths): (&'static str, &[&str])| Some((name, first(document, paths)?));
    let is_address = |(kind, address): &(&str, String)| {
        !kind.ends_with("IP") || address.parse::<IpAddr>().is_ok()
    };
    // Oracle: EMIr:PHX-AD-1
    let after_colon = |(name, value): (&'static str, String)| {
        let value = value.trim_end_matches(':').rsplit(':').next();
        (name, value.unwrap_or_default().trim().to_owned())
    };
    let is_label = |(name, value): &(&str, String)| {
        let problem = label_value_problem(value);
        if let Some(problem) = &problem {
            log::warn!("metadata: no label {name} is made of {value:?}: {problem}");
        }
        problem.is_none()
    };
    Site {
        labels: labels
            .into_iter()
            .filter_map(found)
            .map(after_colon)
            .filter(is_label)
            .collect(),
        addresses: addresses
            .into_iter()
            .filter_map(found)
            .filter(is_address)
            .collect(),
    }
}

fn first(document: &Value, paths: &[&str]) -> Option<String> {
    paths.iter().find_map(|path| {
        let text = document.pointer(&format!("/{path}"))?.as_str()?;
        // GCP: projects/1/zones/europe-west1-b
        let text = text.rsplit('/').next().unwrap_or_default().trim();
        (!text.is_empty()).then(|| text.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_of_several_providers_say_where_the_machine_is() {
        let labels = |region: &str, zone: &str, kind: &str| {
            let all = [
                ("topology.kubernetes.io/region", region),
                ("topology.kubernetes.io/zone", zone),
                ("node.kubernetes.io/instance-type", kind),
            ];
            let given = all.into_iter().filter(|(_, value)| !value.is_empty());
            given
                .map(|(name, value)| (name, value.to_owned()))
                .collect::<Vec<_>>()
        };
        for (document, expected, addresses) in [
            (
                json!({"region": "eu-1", "availabilityZone": "eu-1a", "instanceType": "t4g.nano",
                    "privateIp": "10.0.0.5", "accountId": "1"}),
                labels("eu-1", "eu-1a", "t4g.nano"),
                vec![("InternalIP", "10.0.0.5")],
            ),
            (
                json!({"v1": {"region": "shop-7", "availability_zone": "rack-2"}}),
                labels("shop-7", "rack-2", ""),
                vec![],
            ),
            (
                json!({"compute": {"location": "west", "vmSize": "B1", "zone": ""}}),
                labels("west", "", "B1"),
                vec![],
            ),
            (
                json!({"instance": {"zone": "p/1/zones/w1-b", "machineType": "p/1/machineTypes/e2"}}),
                labels("", "w1-b", "e2"),
                vec![],
            ),
            (
                json!({"public-ipv4": "no address", "public-hostname": "pi.example", "zone": 7}),
                labels("", "", ""),
                vec![("ExternalDNS", "pi.example")],
            ),
            (json!([]), labels("", "", ""), vec![]),
        ] {
            let site = site_of(&document);
            assert_eq!(site.labels, expected, "{document}");
            let found: Vec<(&str, &str)> = site
                .addresses
                .iter()
                .map(|(kind, address)| (*kind, address.as_str()))
                .collect();
            assert_eq!(found, addresses, "{document}");
        }
    }
}
