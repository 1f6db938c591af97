//! The text files that every container of a pod shares: hosts, resolv.conf, hostname.
//!
//! Pure: configuration in, text out.

use std::fmt::Write;
use std::net::IpAddr;

use crate::world::{Dns, HostAlias, NamespaceMode, SandboxConfig};

/// What a hosts file of a pod starts with. Source: Kubernetes pkg/kubelet/kubelet_pods.go.
const HOSTS_HEAD: &str = "\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";
const HOSTS_HEAD_OF_NODE: &str = "# Kubernetes-managed hosts file (host network).\n";

/// Content of `/etc/hosts`. `node_hosts`: the node's own file, used for hostNetwork.
pub fn hosts(config: &SandboxConfig, ips: &[IpAddr], node_hosts: &str) -> String {
    let mut text = match config.namespaces.network {
        NamespaceMode::Host => format!("{HOSTS_HEAD_OF_NODE}{node_hosts}"),
        NamespaceMode::Pod | NamespaceMode::Container => {
            let mut text = HOSTS_HEAD.to_string();
            for ip in ips {
                let names = own_names(&config.hostname, config.domain.as_deref());
                writeln!(text, "{ip}\t{names}").expect(INFALLIBLE);
            }
            text
        }
    };
    add_aliases(&mut text, &config.host_aliases);
    text
}

const INFALLIBLE: &str = "writing to a string cannot fail";

fn own_names(hostname: &str, domain: Option<&str>) -> String {
    let Some(domain) = domain else {
        return hostname.to_string();
    };
    // setHostnameAsFQDN: the hostname has the domain in it already.
    let short = hostname
        .strip_suffix(domain)
        .and_then(|start| start.strip_suffix('.'))
        .unwrap_or(hostname);
    format!("{short}.{domain}\t{short}")
}

fn add_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        writeln!(text, "{}\t{}", alias.ip, alias.hostnames.join("\t")).expect(INFALLIBLE);
    }
}

/// Content of `/etc/resolv.conf`, in the order that CRI runtimes write it.
pub fn resolv_conf(dns: &Dns) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        writeln!(text, "search {}", dns.searches.join(" ")).expect(INFALLIBLE);
    }
    for server in &dns.nameservers {
        writeln!(text, "nameserver {server}").expect(INFALLIBLE);
    }
    if !dns.options.is_empty() {
        writeln!(text, "options {}", dns.options.join(" ")).expect(INFALLIBLE);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{CgroupResources, Namespaces, PodCgroup, QosClass, Uid};

    fn config(hostname: &str, domain: Option<&str>, network: NamespaceMode) -> SandboxConfig {
        SandboxConfig {
            uid: Uid::new("uid").expect("a safe name"),
            name: "pod".into(),
            namespace: "default".into(),
            attempt: 0,
            hostname: hostname.into(),
            domain: domain.map(str::to_owned),
            namespaces: Namespaces {
                network,
                ipc: NamespaceMode::Pod,
                pid: NamespaceMode::Container,
            },
            ports: vec![],
            dns: Dns::default(),
            host_aliases: vec![],
            sysctls: vec![],
            cgroup: PodCgroup {
                qos: QosClass::BestEffort,
                resources: CgroupResources::default(),
            },
        }
    }

    #[test]
    fn the_last_line_of_hosts_names_the_pod() {
        let ips = ["10.88.0.2".parse().expect("an address")];
        for (hostname, domain, line) in [
            ("web", None, "10.88.0.2\tweb"),
            ("web", Some("s.ns.svc.c"), "10.88.0.2\tweb.s.ns.svc.c\tweb"),
            ("web.s.c", Some("s.c"), "10.88.0.2\tweb.s.c\tweb"),
        ] {
            let text = hosts(&config(hostname, domain, NamespaceMode::Pod), &ips, "");
            assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
            assert_eq!(text.lines().last(), Some(line));
        }
    }

    #[test]
    fn host_network_pods_get_the_nodes_file_and_their_aliases() {
        let mut config = config("node", None, NamespaceMode::Host);
        config.host_aliases.push(HostAlias {
            ip: "1.2.3.4".into(),
            hostnames: vec!["a".into(), "b".into()],
        });
        assert_eq!(
            hosts(&config, &[], "127.0.0.1\tlocalhost\n"),
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n\
             \n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        );
    }

    #[test]
    fn resolv_conf_leaves_out_what_is_empty() {
        let dns = Dns {
            nameservers: vec!["10.0.0.10".into(), "1.1.1.1".into()],
            searches: vec!["a.b".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        let text = "search a.b b\nnameserver 10.0.0.10\nnameserver 1.1.1.1\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns), text);
        assert_eq!(resolv_conf(&Dns::default()), "");
    }
}
