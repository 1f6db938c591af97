//! A pod's resolv.conf: `dnsPolicy`, `dnsConfig`, the node's settings and the host's own file.
//!
//! Never an error: what does not fit is dropped and a warning says which line was applied.
//! Source: k8s.io/kubernetes pkg/kubelet/network/dns/dns.go.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec};

use super::facts::DnsSettings;
use crate::world::Dns;

/// Limits of glibc's resolver that upstream enforces (resolv.conf(5)), and of one name (RFC 1035).
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LINE_BYTES_MAX: usize = 2048;
const DOMAIN_BYTES_MAX: usize = 253;

/// A Warning event of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodWarning {
    /// `DNSConfigForming`, for example.
    pub reason: &'static str,
    pub message: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Cluster,
    Host,
    None,
}

/// Merges everything that bears on the pod's resolv.conf.
pub fn pod_dns(pod: &Pod, settings: &DnsSettings) -> (Dns, Vec<PodWarning>) {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let mut warnings = Vec::new();
    let mut dns = match policy(pod, spec, settings, &mut warnings) {
        Policy::Cluster => of_cluster(pod, settings),
        Policy::Host => of_host(settings),
        Policy::None => Dns::default(),
    };
    if let Some(config) = &spec.dns_config {
        append(&mut dns, config);
    }
    deduplicate(&mut dns.nameservers);
    deduplicate(&mut dns.searches);
    limit(&mut dns, &mut warnings);
    (dns, warnings)
}

fn policy(
    pod: &Pod,
    spec: &PodSpec,
    settings: &DnsSettings,
    warnings: &mut Vec<PodWarning>,
) -> Policy {
    let host_network = spec.host_network == Some(true);
    let written = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    match written {
        "None" => return Policy::None,
        "Default" => return Policy::Host,
        "ClusterFirstWithHostNet" => {}
        _ if host_network => return Policy::Host,
        _ => {}
    }
    if !settings.servers.is_empty() {
        return Policy::Cluster;
    }
    let metadata = &pod.metadata;
    warnings.push(PodWarning {
        reason: "MissingClusterDNS",
        message: format!(
            "pod: \"{}_{}({})\". kubelet does not have ClusterDNS IP configured and cannot create \
             Pod using {written:?} policy. Falling back to \"Default\" policy.",
            metadata.name.as_deref().unwrap_or_default(),
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default(),
        ),
    });
    Policy::Host
}

fn of_cluster(pod: &Pod, settings: &DnsSettings) -> Dns {
    let domain = settings.domain.trim_end_matches('.');
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut searches = match domain {
        "" => Vec::new(),
        _ => vec![
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.to_owned(),
        ],
    };
    searches.extend(of_host(settings).searches);
    Dns {
        nameservers: settings.servers.clone(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

fn of_host(settings: &DnsSettings) -> Dns {
    match &settings.host_resolv_conf {
        Some(text) => parse_resolv_conf(text),
        None => Dns {
            nameservers: vec!["127.0.0.1".to_owned()],
            searches: vec![".".to_owned()],
            options: Vec::new(),
        },
    }
}

/// Reads a resolv.conf; of several search or options lines the last one counts.
pub fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim) {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => dns.nameservers.extend(words.next().map(str::to_owned)),
            Some("search") => dns.searches = words.map(without_final_dot).collect(),
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            // Comments, and `domain`, which upstream leaves alone too.
            Some(_) | None => {}
        }
    }
    dns
}

fn without_final_dot(domain: &str) -> String {
    match domain {
        "." => domain.to_owned(),
        _ => domain.trim_end_matches('.').to_owned(),
    }
}

fn append(dns: &mut Dns, config: &PodDNSConfig) {
    dns.nameservers
        .extend(config.nameservers.iter().flatten().cloned());
    dns.searches
        .extend(config.searches.iter().flatten().cloned());
    for option in config.options.iter().flatten() {
        let Some(name) = option.name.as_deref() else {
            continue;
        };
        let written = match option.value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            Some(_) | None => name.to_owned(),
        };
        dns.options
            .retain(|known| known.split(':').next() != Some(name));
        dns.options.push(written);
    }
}

fn deduplicate(list: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
}

fn limit(dns: &mut Dns, warnings: &mut Vec<PodWarning>) {
    if dns.nameservers.len() > NAMESERVERS_MAX {
        dns.nameservers.truncate(NAMESERVERS_MAX);
        warnings.push(PodWarning {
            reason: "DNSConfigForming",
            message: format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, \
                 the applied nameserver line is: {}",
                dns.nameservers.join(" ")
            ),
        });
    }
    let stated = dns.searches.len();
    dns.searches
        .retain(|domain| domain.len() <= DOMAIN_BYTES_MAX);
    dns.searches.truncate(SEARCHES_MAX);
    while dns.searches.join(" ").len() > SEARCH_LINE_BYTES_MAX {
        dns.searches.pop();
    }
    if dns.searches.len() < stated {
        warnings.push(PodWarning {
            reason: "DNSConfigForming",
            message: format!(
                "Search Line limits were exceeded, some search paths have been omitted, \
                 the applied search line is: {}",
                dns.searches.join(" ")
            ),
        });
    }
}
