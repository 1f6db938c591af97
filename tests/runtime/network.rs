//! The built-in pod network, without pods: any process with a network namespace will do.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use lowtide::os::clock::SystemClock;
use lowtide::runtime::network::{
    self, Bridge, Cni, Lease, Network, NetworkError, Subnet, firewall,
};
use lowtide::world::{PortMapping, Protocol, Uid};

use crate::support::{
    Process, eventually, greeting, greeting_in, isolated, namespace_of, run, serve, udp_answer,
};

fn subnet(text: &str) -> Subnet {
    Subnet::parse(text).expect("a valid range")
}

fn uid(name: &str) -> Uid {
    Uid::new(name).expect("a safe name")
}

fn port(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> PortMapping {
    PortMapping {
        host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
        host_port,
        container_port: 80,
        protocol,
    }
}

/// A process that stands for a pod's pause.
struct Pod {
    pause: Process,
    uid: Uid,
    lease: Lease,
}

impl Pod {
    fn start(network: &Bridge, name: &str, ports: &[PortMapping]) -> Pod {
        let pause = bare_namespace();
        let uid = uid(name);
        let lease = network.lease(&uid, ports).expect("a lease");
        let namespace = namespace_of(pause.pid());
        let attached = network.attach(&uid, &lease, namespace.as_fd());
        attached.expect("attached");
        Pod { pause, uid, lease }
    }

    fn namespace(&self) -> File {
        namespace_of(self.pause.pid())
    }

    fn output(&self, script: &str) -> String {
        let pid = self.pause.pid().to_string();
        run("nsenter", &["-t", &pid, "-n", "sh", "-c", script])
    }
}

fn bare_namespace() -> Process {
    let pause = Process::start("unshare", &["-n", "sleep", "600"]);
    let own = std::fs::read_link("/proc/self/ns/net").expect("own namespace");
    let theirs = format!("/proc/{}/ns/net", pause.pid());
    eventually("a new network namespace", || {
        std::fs::read_link(&theirs).is_ok_and(|name| name != own)
    });
    pause
}

#[test]
fn a_pod_gets_address_route_and_interfaces_and_leaves_nothing() {
    isolated(
        "network::a_pod_gets_address_route_and_interfaces_and_leaves_nothing",
        || {
            let before = run("ip", &["-o", "link"]);
            let network = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
            let pod = Pod::start(&network, "one", &[]);
            let links = pod.output("ip -o addr");
            assert!(links.contains("10.88.0.2/24"), "{links}");
            assert!(links.contains("127.0.0.1/8"), "{links}");
            let routes = pod.output("ip route");
            assert!(
                routes.contains("default via 10.88.0.1 dev eth0"),
                "{routes}"
            );
            let mac = pod.output("ip -o link show eth0");
            assert!(mac.contains("0a:58:0a:58:00:02"), "{mac}");
            let detail = run("ip", &["-d", "link", "show", "lt0123abcd-2"]);
            assert!(detail.contains("hairpin on"), "{detail}");
            let heard = "/proc/sys/net/ipv6/conf/lt-0123abcd/accept_ra";
            assert_eq!(std::fs::read_to_string(heard).ok().as_deref(), Some("0\n"));
            let gateway = "10.88.0.1:7";
            serve(&namespace_of(std::process::id()), gateway, "node");
            assert_eq!(
                greeting_in(&pod.namespace(), gateway).as_deref(),
                Some("node")
            );
            let Pod { pause, uid, .. } = pod;
            drop(pause);
            eventually("the veth goes with its namespace", || {
                !run("ip", &["-o", "link"]).contains("lt0123abcd-2")
            });
            network.release(&uid).expect("released");
            network.release(&uid).expect("twice");
            network.remove_all().expect("removed");
            assert_eq!(run("ip", &["-o", "link"]), before);
            assert_eq!(run("nft", &["list", "tables"]), "");
        },
    );
}

#[test]
fn host_ports_answer_on_every_address_of_the_host_and_from_the_pod_itself() {
    isolated(
        "network::host_ports_answer_on_every_address_of_the_host_and_from_the_pod_itself",
        || {
            let network = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
            let ports = [
                port(None, 8080, Protocol::Tcp),
                port(None, 8053, Protocol::Udp),
                port(Some("127.0.0.1"), 8081, Protocol::Tcp),
            ];
            let pod = Pod::start(&network, "server", &ports);
            let client = Pod::start(&network, "client", &[]);
            serve(&pod.namespace(), "0.0.0.0:80", "server");
            for address in [
                "127.0.0.1:8080",
                "10.88.0.1:8080",
                "127.0.0.1:8081",
                "10.88.0.2:80",
            ] {
                eventually(address, || greeting(address).as_deref() == Some("server"));
            }
            assert_eq!(greeting("10.88.0.1:8081"), None, "bound to loopback only");
            for pod in [&client, &pod] {
                let answer = greeting_in(&pod.namespace(), "10.88.0.1:8080");
                assert_eq!(answer.as_deref(), Some("server"));
            }
            assert_eq!(udp_answer("127.0.0.1:8053").as_deref(), Some("server"));
            network.release(&pod.uid).expect("released");
            assert_eq!(greeting("127.0.0.1:8080"), None);
        },
    );
}

#[test]
fn services_on_the_hosts_loopback_stay_out_of_reach() {
    isolated(
        "network::services_on_the_hosts_loopback_stay_out_of_reach",
        || {
            let network = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
            let pod = Pod::start(&network, "pod", &[port(None, 8080, Protocol::Tcp)]);
            serve(&namespace_of(std::process::id()), "127.0.0.1:99", "secret");
            eventually("the service", || greeting("127.0.0.1:99").is_some());
            // The attack of CVE-2020-8558: send packets for 127.0.0.1 over the link.
            let attack = "ip addr del 127.0.0.1/8 dev lo; ip rule add pref 0 from all lookup 100; \
             ip route add 127.0.0.0/8 via 10.88.0.1 dev eth0 table 100; ip rule del pref 0 lookup local; \
             echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; \
             ip rule add pref 1 lookup local";
            pod.output(attack);
            assert_eq!(greeting_in(&pod.namespace(), "127.0.0.1:99"), None);
            let guard = ["list", "chain", "ip", "lowtide-0123abcd", "guard"];
            assert!(run("nft", &guard).contains("drop"));
            // The guard is what stops it: without it the packets arrive.
            run(
                "nft",
                &["flush", "chain", "ip", "lowtide-0123abcd", "guard"],
            );
            let reached = greeting_in(&pod.namespace(), "127.0.0.1:99");
            assert_eq!(reached.as_deref(), Some("secret"));
        },
    );
}

#[test]
fn pods_are_masqueraded_toward_the_world() {
    isolated("network::pods_are_masqueraded_toward_the_world", || {
        let world = bare_namespace();
        let pid = world.pid().to_string();
        run(
            "ip",
            &[
                "link", "add", "up0", "type", "veth", "peer", "name", "up1", "netns", &pid,
            ],
        );
        run("ip", &["addr", "add", "192.0.2.1/24", "dev", "up0"]);
        run("ip", &["link", "set", "up0", "up"]);
        let setup = "ip addr add 192.0.2.2/24 dev up1 && ip link set up1 up && ip link set lo up";
        run("nsenter", &["-t", &pid, "-n", "sh", "-c", setup]);
        // It has no route to the pod: only a masqueraded packet gets an answer.
        serve(&namespace_of(world.pid()), "0.0.0.0:80", "world");
        eventually("the server", || greeting("192.0.2.2:80").is_some());
        let network = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
        let pod = Pod::start(&network, "pod", &[]);
        let answer = greeting_in(&pod.namespace(), "192.0.2.2:80");
        assert_eq!(answer.as_deref(), Some("world"));
    });
}

#[test]
fn a_taken_host_port_is_refused_and_names_the_other_pod() {
    isolated(
        "network::a_taken_host_port_is_refused_and_names_the_other_pod",
        || {
            let network = Bridge::new("0123abcd", subnet("10.88.0.0/30"), "nft");
            let ports = [port(None, 8080, Protocol::Tcp)];
            network.lease(&uid("first"), &ports).expect("free");
            network.release(&uid("first")).expect("released");
            network.lease(&uid("other"), &ports).expect("free again");
            // The only address is taken too, so the port must not be looked at before the address.
            assert!(matches!(
                network.lease(&uid("late"), &[]),
                Err(NetworkError::Failed(_))
            ));
            let wide = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
            wide.lease(&uid("other"), &ports).expect("free");
            match wide.lease(&uid("late"), &ports) {
                Err(NetworkError::Config(text)) => {
                    assert_eq!(text, "hostPort 0.0.0.0:8080/tcp is in use by pod other");
                }
                other => panic!("{other:?}"),
            }
        },
    );
}

#[test]
fn leases_and_rules_survive_a_new_agent() {
    isolated("network::leases_and_rules_survive_a_new_agent", || {
        let first = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
        let pod = Pod::start(&first, "pod", &[port(None, 8080, Protocol::Tcp)]);
        serve(&pod.namespace(), "0.0.0.0:80", "pod");
        eventually("the port", || greeting("127.0.0.1:8080").is_some());
        drop(first);
        run("nft", &["flush", "ruleset"]);
        let second = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
        assert!(second.adopt(&pod.uid, &pod.lease));
        second.restore().expect("restored");
        assert_eq!(greeting("127.0.0.1:8080").as_deref(), Some("pod"));
        let next = second.lease(&uid("next"), &[]).expect("a lease");
        assert_ne!(next.address, pod.lease.address);
        assert!(matches!(
            second.lease(&uid("other"), &[port(None, 8080, Protocol::Tcp)]),
            Err(NetworkError::Config(_))
        ));
    });
}

#[test]
fn two_nodes_side_by_side_do_not_touch_each_others_things() {
    isolated(
        "network::two_nodes_side_by_side_do_not_touch_each_others_things",
        || {
            run("nft", &["add", "table", "ip", "foreign"]);
            let one = Bridge::new("11111111", subnet("10.88.0.0/24"), "nft");
            let two = Bridge::new("22222222", subnet("10.89.0.0/24"), "nft");
            let a = Pod::start(&one, "a", &[port(None, 8080, Protocol::Tcp)]);
            let b = Pod::start(&two, "b", &[port(None, 8081, Protocol::Tcp)]);
            serve(&a.namespace(), "0.0.0.0:80", "a");
            serve(&b.namespace(), "0.0.0.0:80", "b");
            let same = Bridge::new("33333333", subnet("10.88.0.128/25"), "nft");
            let lease = same.lease(&uid("c"), &[]).expect("in memory only");
            let pause = bare_namespace();
            let namespace = namespace_of(pause.pid());
            match same.attach(&uid("c"), &lease, namespace.as_fd()) {
                Err(NetworkError::Config(text)) => {
                    assert!(
                        text.contains("lt-11111111") && text.contains("--pod-cidr"),
                        "{text}"
                    );
                }
                other => panic!("{other:?}"),
            }
            one.release(&a.uid).expect("released");
            drop(a);
            one.remove_all().expect("removed");
            eventually("the other's port", || {
                greeting("127.0.0.1:8081").as_deref() == Some("b")
            });
            let tables = run("nft", &["list", "tables"]);
            assert_eq!(tables, "table ip foreign\ntable ip lowtide-22222222\n");
        },
    );
}

#[test]
fn without_nft_only_pods_with_host_ports_fail() {
    isolated(
        "network::without_nft_only_pods_with_host_ports_fail",
        || {
            let network = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "/no/such/nft");
            let _plain = Pod::start(&network, "plain", &[]);
            let pause = bare_namespace();
            let namespace = namespace_of(pause.pid());
            let uid = uid("ports");
            let ports = [port(None, 8080, Protocol::Tcp)];
            let lease = network.lease(&uid, &ports).expect("a lease");
            match network.attach(&uid, &lease, namespace.as_fd()) {
                Err(NetworkError::NftMissing(text)) => assert!(text.contains("nftables"), "{text}"),
                other => panic!("{other:?}"),
            }
        },
    );
}

/// What `network::keep` is about: the bridge's, which it has alone by then.
#[allow(clippy::disallowed_methods)]
fn kept(bridge: Bridge) -> Arc<Network> {
    let kept = Arc::new(Network::new(bridge, Cni::new(None, "/nonexistent".into())));
    let network = kept.clone();
    std::thread::spawn(move || {
        let clock = Rc::new(SystemClock::new().expect("a timer"));
        async_io::block_on(network::keep(network, clock));
    });
    kept
}

fn route_localnet() -> String {
    let switch = "/proc/sys/net/ipv4/conf/lt-0123abcd/route_localnet";
    std::fs::read_to_string(switch).expect("a bridge")
}

#[test]
fn a_table_that_somebody_flushed_is_written_again() {
    isolated(
        "network::a_table_that_somebody_flushed_is_written_again",
        || {
            let bridge = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
            let pod = Pod::start(&bridge, "pod", &[port(None, 8080, Protocol::Tcp)]);
            serve(&pod.namespace(), "0.0.0.0:80", "pod");
            eventually("the port", || greeting("127.0.0.1:8080").is_some());
            let _kept = kept(bridge);
            for _ in 0..3 {
                run("nft", &["flush", "ruleset"]);
                eventually("the port again", || greeting("127.0.0.1:8080").is_some());
            }
            assert_eq!(route_localnet(), "1\n");
        },
    );
}

#[test]
fn while_the_guard_cannot_be_written_nothing_is_routed_to_the_loopback() {
    isolated(
        "network::while_the_guard_cannot_be_written_nothing_is_routed_to_the_loopback",
        || {
            let directory = tempfile::tempdir().expect("a directory");
            let link = directory.path().join("nft");
            let nft = run("sh", &["-c", "command -v nft"]);
            std::os::unix::fs::symlink(nft.trim(), &link).expect("linked");
            let program = link.to_str().expect("a path");
            let bridge = Bridge::new("0123abcd", subnet("10.88.0.0/24"), program);
            let _pod = Pod::start(&bridge, "pod", &[port(None, 8080, Protocol::Tcp)]);
            assert_eq!(route_localnet(), "1\n");
            std::fs::remove_file(&link).expect("removed");
            let _kept = kept(bridge);
            run("nft", &["flush", "ruleset"]);
            eventually("closed", || route_localnet() == "0\n");
            // Whatever changes next is a reason to try again.
            std::os::unix::fs::symlink(nft.trim(), &link).expect("linked");
            run("nft", &["add", "table", "ip", "foreign"]);
            eventually("open behind the guard", || route_localnet() == "1\n");
        },
    );
}

#[test]
fn a_client_that_never_pauses_reaches_a_udp_port_once_there_is_a_pod() {
    isolated(
        "network::a_client_that_never_pauses_reaches_a_udp_port_once_there_is_a_pod",
        || {
            let network = Bridge::new("0123abcd", subnet("10.88.0.0/24"), "nft");
            let client = Pod::start(&network, "client", &[]);
            let socket = lowtide::os::netns::inside(client.namespace().as_fd(), || {
                UdpSocket::bind("0.0.0.0:0")
            });
            let socket = socket.expect("bound");
            let pause = Some(Duration::from_millis(100));
            socket.set_read_timeout(pause).expect("a timeout");
            let answer = || {
                let mut buffer = [0; 16];
                socket.send_to(b"?", "10.88.0.1:8053").expect("sent");
                let length = socket.recv(&mut buffer).ok()?;
                String::from_utf8(buffer[..length].to_vec()).ok()
            };
            assert_eq!(answer(), None);
            for name in ["first", "second"] {
                let pod = Pod::start(&network, name, &[port(None, 8053, Protocol::Udp)]);
                serve(&pod.namespace(), "0.0.0.0:80", "pod");
                eventually(name, || answer().as_deref() == Some("pod"));
                network.release(&pod.uid).expect("released");
                eventually("the port is nobody's", || answer().is_none());
            }
        },
    );
}

#[test]
fn a_firewall_that_drops_what_pods_send_is_named() {
    isolated(
        "network::a_firewall_that_drops_what_pods_send_is_named",
        || {
            let obstacles = || firewall::obstacles("nft", "lt-0123abcd");
            assert!(obstacles().is_empty());
            let chain = "add table ip filter; \
            add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
            run("nft", &[chain]);
            assert_eq!(obstacles(), ["table ip filter"]);
            run(
                "nft",
                &["add rule ip filter FORWARD iifname lt-0123abcd accept"],
            );
            assert!(obstacles().is_empty());
        },
    );
}

#[test]
fn the_rules_are_probed_and_nothing_is_made() {
    isolated("network::the_rules_are_probed_and_nothing_is_made", || {
        assert_eq!(network::probe_nft("nft"), Ok(()));
        assert_eq!(run("nft", &["list", "ruleset"]), "");
        let refused = network::probe_nft("/bin/false").expect_err("it fails");
        assert!(matches!(refused, NetworkError::Failed(_)), "{refused}");
    });
}
