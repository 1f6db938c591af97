//! Sandbox, DNS and sysctls.

use serde_json::json;

use super::{node, pod};
use crate::kubelet::dns::pod_dns;
use crate::kubelet::sandbox_config::{check_sysctls, sandbox_config};
use crate::world::NamespaceMode;

#[test]
fn dns_follows_the_policy() {
    let mut settings = node().dns;
    settings.servers = vec!["10.96.0.10".to_owned()];
    settings.domain = "cluster.local".to_owned();
    settings.host_resolv_conf = Some(
        "# host\nnameserver 192.0.2.53\nsearch old\nsearch example.com. lan\noptions rotate\n"
            .to_owned(),
    );
    let cluster = "default.svc.cluster.local svc.cluster.local cluster.local example.com lan";
    for (spec, servers, searches, options) in [
        (json!({}), "10.96.0.10", cluster, "ndots:5"),
        (
            json!({"dnsPolicy": "Default"}),
            "192.0.2.53",
            "example.com lan",
            "rotate",
        ),
        (
            json!({"hostNetwork": true}),
            "192.0.2.53",
            "example.com lan",
            "rotate",
        ),
        (
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            "10.96.0.10",
            cluster,
            "ndots:5",
        ),
        (
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.1"]}}),
            "1.1.1.1",
            "",
            "",
        ),
        (
            json!({"dnsConfig": {"searches": ["lan", "x"], "nameservers": ["1.1.1.1"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            "10.96.0.10 1.1.1.1",
            &format!("{cluster} x"),
            "ndots:2 edns0",
        ),
    ] {
        let (dns, warnings) = pod_dns(&pod(spec.clone()), &settings);
        let lines = (
            dns.nameservers.join(" "),
            dns.searches.join(" "),
            dns.options.join(" "),
        );
        assert_eq!(
            lines,
            (servers.into(), searches.into(), options.into()),
            "{spec}"
        );
        assert_eq!(warnings, [], "{spec}");
    }
}

#[test]
fn dns_limits_and_missing_servers_are_reported() {
    let mut settings = node().dns;
    settings.host_resolv_conf = Some("nameserver 192.0.2.53\n".to_owned());
    let (dns, warnings) = pod_dns(&pod(json!({})), &settings);
    assert_eq!(dns.nameservers, ["192.0.2.53"]);
    assert_eq!(warnings[0].reason, "MissingClusterDNS");
    let searches: Vec<String> = (0..40)
        .map(|at| format!("d{at}.{}", "x".repeat(80)))
        .collect();
    let config = json!({"dnsPolicy": "None", "dnsConfig": {
        "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"], "searches": searches}});
    let (dns, warnings) = pod_dns(&pod(config), &settings);
    assert_eq!(dns.nameservers.len(), 3);
    assert!(dns.searches.len() < 32 && dns.searches.join(" ").len() <= 2048);
    assert!(warnings[0].message.ends_with("1.1.1.1 2.2.2.2 3.3.3.3"));
    assert_eq!(warnings.len(), 2);
    settings.host_resolv_conf = None;
    let (dns, _) = pod_dns(&pod(json!({"dnsPolicy": "Default"})), &settings);
    assert_eq!(
        (dns.nameservers, dns.searches),
        (vec!["127.0.0.1".into()], vec![".".into()])
    );
}

#[test]
fn a_sandbox_has_names_namespaces_and_ports() {
    let mut node = node();
    node.dns.domain = "cluster.local".to_owned();
    let plan = sandbox_config(
        &pod(json!({
            "subdomain": "db", "shareProcessNamespace": true,
            "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}],
            "containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 8080},
                {"containerPort": 81},
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"},
            ]}],
        })),
        3,
        &node,
    )
    .expect("a sandbox");
    let config = plan.config;
    assert_eq!((config.hostname.as_str(), config.attempt), ("web", 3));
    assert_eq!(
        config.domain.as_deref(),
        Some("db.default.svc.cluster.local")
    );
    assert_eq!(config.namespaces.pid, NamespaceMode::Pod);
    assert_eq!(config.ports.len(), 2);
    assert_eq!(config.host_aliases[0].hostnames, ["a", "b"]);
}

#[test]
fn host_names_are_cut_to_a_label_and_checked() {
    let long = format!("{}-.{}", "a".repeat(61), "b".repeat(20));
    for (spec, expected) in [
        (json!({"hostname": "own"}), Some("own".to_owned())),
        (json!({"hostname": long}), Some("a".repeat(61))),
        (json!({"hostNetwork": true}), Some("pi-host".to_owned())),
        (
            json!({"hostname": "own", "subdomain": "s", "hostnameOverride": "an.other.example"}),
            Some("an.other.example".to_owned()),
        ),
        (json!({"setHostnameAsFQDN": true}), Some("web".to_owned())),
        (
            json!({"setHostnameAsFQDN": true, "subdomain": "s"}),
            Some("web.s.default.svc".to_owned()),
        ),
        (
            json!({"setHostnameAsFQDN": true, "subdomain": "s".repeat(60)}),
            None,
        ),
        (
            json!({"containers": [{"name": "c", "ports": [
                {"containerPort": 1, "hostPort": 1, "hostIP": "nowhere"}]}]}),
            None,
        ),
    ] {
        let outcome = sandbox_config(&pod(spec.clone()), 0, &node());
        assert_eq!(
            outcome.ok().map(|plan| plan.config.hostname),
            expected,
            "{spec}"
        );
    }
}

#[test]
fn users_other_than_root_bind_low_ports_and_ping_unless_the_pod_says_otherwise() {
    let mut node = node();
    node.kernel = (5, 10);
    let of = |spec: serde_json::Value| {
        let plan = sandbox_config(&pod(spec), 0, &node).expect("a sandbox");
        plan.config.sysctls
    };
    let ports = ("-net.ipv4.ip_unprivileged_port_start", "0");
    let ping = ("-net.ipv4.ping_group_range", "0 2147483647");
    let own = [("net.ipv4.ip_unprivileged_port_start", "1024")];
    let stated = own.map(|(name, value)| json!({"name": name, "value": value}));
    let stated = json!({"securityContext": {"sysctls": stated}});
    for (spec, expected) in [
        (json!({}), vec![ports, ping]),
        (json!({"hostNetwork": true}), vec![]),
        (json!({"hostUsers": false}), vec![ports]),
        // They are set in this order.
        (stated, vec![ports, ping, own[0]]),
    ] {
        let sysctls = of(spec);
        let sysctls: Vec<_> = sysctls
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(sysctls, expected);
    }
}

#[test]
fn only_safe_or_allowed_sysctls_pass() {
    let mut node = node();
    node.allowed_unsafe_sysctls = vec!["net.core.*".to_owned(), "kernel.*".to_owned()];
    for (name, value, extra, passes) in [
        ("net.ipv4.tcp_syncookies", "1", json!({}), true),
        ("net/ipv4/tcp_syncookies", "1", json!({}), true),
        (
            "net.ipv4.ip_local_port_range",
            "1024\t65535",
            json!({}),
            true,
        ),
        ("net.ipv4.ip_forward", "1", json!({}), false),
        ("net.core.somaxconn", "1024", json!({}), true),
        ("kernel.msgmax", "65536", json!({}), true),
        ("kernel.core_pattern", "x", json!({}), false),
        ("vm.swappiness", "1", json!({}), false),
        (
            "net.ipv4.tcp_syncookies",
            "1+kernel.core_pattern=|/x",
            json!({}),
            false,
        ),
        ("kernel.shm_rmid_forced", "1=2", json!({}), false),
        (
            "kernel.shm_rmid_forced+kernel.core_pattern",
            "1",
            json!({}),
            false,
        ),
        ("kernel.shm_rmid_forced", "1\n", json!({}), false),
        ("net..core", "1", json!({}), false),
        (
            "net.ipv4.tcp_syncookies",
            "1",
            json!({"hostNetwork": true}),
            false,
        ),
        (
            "kernel.shm_rmid_forced",
            "1",
            json!({"hostIPC": true}),
            false,
        ),
    ] {
        let mut spec = extra;
        spec["securityContext"] = json!({"sysctls": [{"name": name, "value": value}]});
        let outcome = check_sysctls(&pod(spec), &node);
        assert_eq!(outcome.is_ok(), passes, "{name}={value}: {outcome:?}");
        if let Err(rejection) = outcome {
            assert_eq!(rejection.reason, "SysctlForbidden");
        }
    }
    node.kernel = (4, 4);
    let old = pod(json!({"securityContext":
        {"sysctls": [{"name": "net.ipv4.tcp_keepalive_time", "value": "1"}]}}));
    assert!(
        check_sysctls(&old, &node).is_err(),
        "namespaced only from 4.5 on"
    );
}
