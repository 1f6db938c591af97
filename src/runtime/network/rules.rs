//! The node's one nft table as text: masquerade for all pods, DNAT for those with hostPorts.
//!
//! Pure: records in, script out. The script replaces the table whole in one transaction, so that
//! rules are always exactly what the records say, whatever somebody did to them in between. Tables
//! of others are never named. All values are numbers and addresses, nothing needs quoting. It says
//! nothing that nft 0.9.8 (Debian 11) does not know: maps to an address and a port are newer.
//!
//! ```text
//! prerouting ─ guard     pods may not reach 127.0.0.0/8 of the host (CVE-2020-8558)
//!            └ incoming ─┐
//! output     ─ local    ─┴► hostports   a rule each: [host address] protocol port → pod:port
//! postrouting─ outgoing  masquerade: loopback → pod, pod → own hostPort, pod → world
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::world::{PortMapping, Protocol, Uid};

use super::ipam::Subnet;

/// One hostPort that leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// `None`: every address of the host.
    pub host_ip: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub host_port: u16,
    pub pod_ip: Ipv4Addr,
    pub pod_port: u16,
}

impl Published {
    /// The pod's mappings that ask for a host port (`host_port` 0 asks for none); the unspecified
    /// `hostIP` means every address, as upstream.
    /// Errors: a text naming the mapping, if its `hostIP` is IPv6: the pod network is IPv4.
    pub fn of_pod(ports: &[PortMapping], pod_ip: Ipv4Addr) -> Result<Vec<Published>, String> {
        let published = ports.iter().filter(|port| port.host_port != 0);
        published
            .map(|port| {
                let host_ip = match port.host_ip {
                    None => None,
                    Some(IpAddr::V4(ip)) => (!ip.is_unspecified()).then_some(ip),
                    Some(IpAddr::V6(ip)) if ip.is_unspecified() => None,
                    Some(IpAddr::V6(ip)) => {
                        return Err(format!(
                            "hostPort {}: hostIP {ip} is IPv6, the pod network is IPv4 only",
                            port.host_port
                        ));
                    }
                };
                Ok(Published {
                    host_ip,
                    protocol: port.protocol,
                    host_port: port.host_port,
                    pod_ip,
                    pod_port: port.container_port,
                })
            })
            .collect()
    }

    fn collides(&self, other: &Published) -> bool {
        let same_address = match (self.host_ip, other.host_ip) {
            (Some(a), Some(b)) => a == b,
            (None, _) | (_, None) => true,
        };
        self.protocol == other.protocol && self.host_port == other.host_port && same_address
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host_ip = self.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let protocol = protocol_name(self.protocol);
        write!(f, "hostPort {host_ip}:{}/{protocol}", self.host_port)
    }
}

pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// The first wanted hostPort that another pod has, with that pod.
pub fn conflict<'a>(
    taken: &'a BTreeMap<Uid, Vec<Published>>,
    uid: &Uid,
    wanted: &[Published],
) -> Option<(Published, &'a Uid)> {
    let others = taken.iter().filter(|(owner, _)| *owner != uid);
    for (owner, ports) in others {
        let hit = wanted
            .iter()
            .find(|want| ports.iter().any(|port| port.collides(want)));
        if let Some(want) = hit {
            return Some((*want, owner));
        }
    }
    None
}

/// What the table is made from.
pub struct Table<'a> {
    /// `lowtide-<instance id>`
    pub name: &'a str,
    pub bridge: &'a str,
    pub subnet: Subnet,
    pub published: &'a BTreeMap<Uid, Vec<Published>>,
}

impl Table<'_> {
    /// Script for `nft -f -` that makes the table anew, or replaces it.
    pub fn script(&self) -> String {
        let Table { bridge, subnet, .. } = self;
        let ports = self.ports();
        let head = self.removal();
        let name = self.name;
        // The guard runs before connection tracking: replies to a masqueraded loopback client
        // still carry the bridge's address there, so only real attempts are dropped.
        format!(
            "{head}table ip {name} {{
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
  }}
  chain hostports {{
{ports}  }}
  chain incoming {{
    type nat hook prerouting priority -100; policy accept;
    fib daddr type local jump hostports
  }}
  chain local {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump hostports
  }}
  chain outgoing {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade
    ip saddr {subnet} ip daddr {subnet} ct status dnat masquerade
    ip saddr {subnet} ip daddr != {{ {subnet}, 224.0.0.0/4 }} masquerade
  }}
}}
"
        )
    }

    /// Script that removes the table and succeeds if there is none.
    pub fn removal(&self) -> String {
        let name = self.name;
        format!("table ip {name}\ndelete table ip {name}\n")
    }

    /// Of two rules for one port of a pod that with an address is the nearer.
    fn ports(&self) -> String {
        let mut addressed = String::new();
        let mut any = String::new();
        for port in self.published.values().flatten() {
            let protocol = protocol_name(port.protocol);
            let Published {
                host_port,
                pod_ip,
                pod_port,
                ..
            } = port;
            let rule = format!("{protocol} dport {host_port} dnat to {pod_ip}:{pod_port}\n");
            match port.host_ip {
                None => any += &format!("    {rule}"),
                Some(host_ip) => addressed += &format!("    ip daddr {host_ip} {rule}"),
            }
        }
        addressed + &any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(name: &str) -> Uid {
        Uid::new(name).expect("a safe name")
    }

    fn mapping(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> PortMapping {
        PortMapping {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            container_port: 80,
            protocol,
        }
    }

    fn published(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> Published {
        let pod_ip = Ipv4Addr::new(10, 88, 0, 2);
        Published::of_pod(&[mapping(host_ip, host_port, protocol)], pod_ip).unwrap()[0]
    }

    #[test]
    fn only_mappings_with_a_host_port_are_published() {
        let pod_ip = Ipv4Addr::new(10, 88, 0, 2);
        let none = Published::of_pod(&[mapping(None, 0, Protocol::Tcp)], pod_ip);
        assert_eq!(none, Ok(vec![]));
        let wild = published(Some("0.0.0.0"), 80, Protocol::Tcp);
        assert_eq!(wild.host_ip, None);
        let six = Published::of_pod(&[mapping(Some("fe80::1"), 80, Protocol::Tcp)], pod_ip);
        assert!(six.unwrap_err().contains("fe80::1"));
    }

    #[test]
    fn a_conflict_names_the_other_pod() {
        let have = published(None, 80, Protocol::Tcp);
        let bound = published(Some("127.0.0.1"), 81, Protocol::Tcp);
        let taken = BTreeMap::from([(uid("other"), vec![have, bound])]);
        for (want, collides) in [
            (published(None, 80, Protocol::Tcp), true),
            (published(Some("127.0.0.1"), 80, Protocol::Tcp), true),
            (published(None, 80, Protocol::Udp), false),
            (published(Some("127.0.0.2"), 81, Protocol::Tcp), false),
            (published(None, 81, Protocol::Tcp), true),
        ] {
            let hit = conflict(&taken, &uid("me"), &[want]);
            assert_eq!(hit.is_some(), collides, "{want}");
            assert_eq!(conflict(&taken, &uid("other"), &[want]), None);
        }
    }

    #[test]
    fn the_script_holds_every_port_once() {
        let ports = vec![
            published(None, 8080, Protocol::Tcp),
            published(Some("127.0.0.1"), 53, Protocol::Udp),
            published(None, 53, Protocol::Sctp),
        ];
        let taken = BTreeMap::from([(uid("a"), ports)]);
        let table = Table {
            name: "lowtide-0123abcd",
            bridge: "lt-0123abcd",
            subnet: Subnet::parse("10.88.0.0/24").unwrap(),
            published: &taken,
        };
        let script = table.script();
        assert!(
            script.starts_with("table ip lowtide-0123abcd\ndelete table ip lowtide-0123abcd\n")
        );
        let hostports = "  chain hostports {
    ip daddr 127.0.0.1 udp dport 53 dnat to 10.88.0.2:80
    tcp dport 8080 dnat to 10.88.0.2:80
    sctp dport 53 dnat to 10.88.0.2:80
  }
";
        assert!(script.contains(hostports), "{script}");
        assert!(!script.contains("map"), "nft 0.9.8 refuses those: {script}");
    }

    #[test]
    fn without_ports_no_rule_names_one_and_masquerade_stays() {
        let table = Table {
            name: "lowtide-0123abcd",
            bridge: "lt-0123abcd",
            subnet: Subnet::parse("10.88.0.0/24").unwrap(),
            published: &BTreeMap::new(),
        };
        let script = table.script();
        assert!(script.contains("chain hostports {\n  }"), "{script}");
        assert!(script.contains("masquerade"));
    }
}
