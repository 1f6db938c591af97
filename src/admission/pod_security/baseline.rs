//! Level baseline: nothing that is a known way out of a container. Pure.
//!
//! Source: Kubernetes `pod-security-admission/policy/check_*.go`.

use serde_json::Value;

use super::checks::{
    Names, Violation, containers, context, named, plural, quoted, relaxed, setters, since_minor,
    violation,
};
use super::policy::Version;
use crate::admission::pod::{items, text};

pub fn app_armor_profile(pod: &Value, _at: Version) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = Names::new();
    let mut wrong = |of: &Value| {
        let profile = &context(of)["appArmorProfile"];
        let kind = text(profile, "type");
        let wrong = profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if wrong {
            values.insert(kind.to_owned());
        }
        wrong
    };
    let of_pod = wrong(&pod["spec"]);
    let of_containers = containers(pod, wrong);
    let annotations = pod["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten();
    let mut annotations: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with(ANNOTATION))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort_unstable();
    let told = (!annotations.is_empty()).then(|| plural("annotation", annotations.len()));
    let setters: Vec<String> = setters(of_pod, &of_containers)
        .into_iter()
        .chain(told)
        .collect();
    if setters.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = match values.len() {
        1 => "forbidden AppArmor profile",
        _ => "forbidden AppArmor profiles",
    };
    let setters = setters.join(" and ");
    let values = quoted(&values);
    violation(
        reason,
        format!("{setters} must not set AppArmor profile type to {values}"),
    )
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub fn capabilities(pod: &Value, _at: Version) -> Option<Violation> {
    let mut added = Names::new();
    let bad = containers(pod, |container| {
        let all = items(&context(container)["capabilities"], "add").filter_map(Value::as_str);
        let forbidden: Vec<&str> = all.filter(|name| !CAPABILITIES.contains(name)).collect();
        added.extend(forbidden.iter().map(|name| (*name).to_owned()));
        !forbidden.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    let (who, what) = (named("container", &bad), quoted(&added));
    violation(
        "non-default capabilities",
        format!("{who} must not include {what} in securityContext.capabilities.add"),
    )
}

pub fn host_namespaces(pod: &Value, _at: Version) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared = shared.filter(|field| pod["spec"][*field] == true);
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    match shared.is_empty() {
        true => None,
        false => violation("host namespaces", shared.join(", ")),
    }
}

pub fn host_path_volumes(pod: &Value, _at: Version) -> Option<Violation> {
    let volumes = items(&pod["spec"], "volumes").filter(|volume| volume["hostPath"].is_object());
    let names: Vec<String> = volumes
        .map(|volume| text(volume, "name").to_owned())
        .collect();
    match names.is_empty() {
        true => None,
        false => violation("hostPath volumes", named("volume", &names)),
    }
}

pub fn host_ports(pod: &Value, _at: Version) -> Option<Violation> {
    let mut ports = Names::new();
    let bad = containers(pod, |container| {
        let used = items(container, "ports").filter_map(|port| port["hostPort"].as_i64());
        let used: Vec<i64> = used.filter(|port| *port != 0).collect();
        ports.extend(used.iter().map(i64::to_string));
        !used.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    let what = plural("hostPort", ports.len());
    let list = ports.into_iter().collect::<Vec<_>>().join(", ");
    violation(
        "hostPort",
        format!("{} {uses} {what} {list}", named("container", &bad)),
    )
}

pub fn host_probes(pod: &Value, at: Version) -> Option<Violation> {
    if !since_minor(at, 34) {
        return None;
    }
    let mut hosts = Names::new();
    let mut bad = containers(pod, |container| {
        let lifecycle = &container["lifecycle"];
        let handlers = [
            &container["livenessProbe"],
            &container["readinessProbe"],
            &container["startupProbe"],
            &lifecycle["postStart"],
            &lifecycle["preStop"],
        ];
        let named = handlers.into_iter().flat_map(|handler| {
            [
                text(&handler["httpGet"], "host"),
                text(&handler["tcpSocket"], "host"),
            ]
        });
        let named: Vec<&str> = named.filter(|host| !host.is_empty()).collect();
        hosts.extend(named.iter().map(|host| (*host).to_owned()));
        !named.is_empty()
    });
    bad.sort_unstable();
    if bad.is_empty() {
        return None;
    }
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    let what = plural("probe or lifecycle host", hosts.len());
    let who = named("container", &bad);
    violation(
        "probe or lifecycle host",
        format!("{who} {uses} {what} {}", quoted(&hosts)),
    )
}

pub fn privileged(pod: &Value, _at: Version) -> Option<Violation> {
    let bad = containers(pod, |container| context(container)["privileged"] == true);
    match bad.is_empty() {
        true => None,
        false => violation(
            "privileged",
            format!(
                "{} must not set securityContext.privileged=true",
                named("container", &bad)
            ),
        ),
    }
}

pub fn proc_mount(pod: &Value, at: Version) -> Option<Violation> {
    match relaxed(pod, at) {
        true => None,
        false => any_proc_mount(pod),
    }
}

pub fn any_proc_mount(pod: &Value) -> Option<Violation> {
    let mut kinds = Names::new();
    let bad = containers(pod, |container| {
        let kind = context(container)["procMount"].as_str();
        let wrong = kind.is_some_and(|kind| kind != "Default");
        kinds.extend(kind.filter(|_| wrong).map(str::to_owned));
        wrong
    });
    if bad.is_empty() {
        return None;
    }
    let (who, what) = (named("container", &bad), quoted(&kinds));
    violation(
        "procMount",
        format!("{who} must not set securityContext.procMount to {what}"),
    )
}

pub fn selinux_options(pod: &Value, at: Version) -> Option<Violation> {
    let engine = since_minor(at, 31);
    let (mut types, mut user, mut role) = (Names::new(), false, false);
    let mut wrong = |of: &Value| {
        let options = &context(of)["seLinuxOptions"];
        let kind = text(options, "type");
        let known = matches!(
            kind,
            "" | "container_t" | "container_init_t" | "container_kvm_t"
        ) || (engine && kind == "container_engine_t");
        if !known {
            types.insert(kind.to_owned());
        }
        let sets = |field: &str| !text(options, field).is_empty();
        user |= sets("user");
        role |= sets("role");
        !known || sets("user") || sets("role")
    };
    let of_pod = wrong(&pod["spec"]);
    let of_containers = containers(pod, wrong);
    let setters = setters(of_pod, &of_containers)?;
    let types: Vec<String> = types.into_iter().collect();
    let types = (!types.is_empty()).then(|| named("type", &types));
    let user = user.then(|| "user may not be set".to_owned());
    let role = role.then(|| "role may not be set".to_owned());
    let data: Vec<String> = [types, user, role].into_iter().flatten().collect();
    let data = data.join("; ");
    violation(
        "seLinuxOptions",
        format!("{setters} set forbidden securityContext.seLinuxOptions: {data}"),
    )
}

pub fn seccomp_profile(pod: &Value, at: Version) -> Option<Violation> {
    if !since_minor(at, 19) {
        return seccomp_annotations(pod);
    }
    let mut values = Names::new();
    let mut wrong = |of: &Value| {
        let profile = &context(of)["seccompProfile"];
        let kind = text(profile, "type");
        let wrong = profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if wrong {
            values.insert(kind.to_owned());
        }
        wrong
    };
    let of_pod = wrong(&pod["spec"]);
    let of_containers = containers(pod, wrong);
    let setters = setters(of_pod, &of_containers)?;
    let values = quoted(&values);
    violation(
        "seccompProfile",
        format!("{setters} must not set securityContext.seccompProfile.type to {values}"),
    )
}

/// How it was said before 1.19.
fn seccomp_annotations(pod: &Value) -> Option<Violation> {
    let annotations = &pod["metadata"]["annotations"];
    let of_pod = "seccomp.security.alpha.kubernetes.io/pod".to_owned();
    let of_containers = containers(pod, |_| true).into_iter();
    let of_containers =
        of_containers.map(|name| format!("container.seccomp.security.alpha.kubernetes.io/{name}"));
    let keys = std::iter::once(of_pod).chain(of_containers);
    let forbidden = keys.filter_map(|key| {
        let value = annotations.get(&key)?.as_str()?;
        let fine = matches!(value, "runtime/default" | "docker/default");
        (!fine && !value.starts_with("localhost/")).then(|| format!("{key}={value:?}"))
    });
    let forbidden: Names = forbidden.collect();
    if forbidden.is_empty() {
        return None;
    }
    let what = plural("annotation", forbidden.len());
    let list = forbidden.into_iter().collect::<Vec<_>>().join(", ");
    violation("seccompProfile", format!("forbidden {what} {list}"))
}

/// Allowed since this minor release.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

pub fn sysctls(pod: &Value, at: Version) -> Option<Violation> {
    let names = items(context(&pod["spec"]), "sysctls").map(|sysctl| text(sysctl, "name"));
    let forbidden = names.filter(|name| {
        let known = SYSCTLS.iter().find(|(allowed, _)| allowed == name);
        !known.is_some_and(|(_, since)| since_minor(at, *since))
    });
    let forbidden: Vec<&str> = forbidden.collect();
    match forbidden.is_empty() {
        true => None,
        false => violation("forbidden sysctls", forbidden.join(", ")),
    }
}

pub fn windows_host_process(pod: &Value, _at: Version) -> Option<Violation> {
    let set = |of: &Value| context(of)["windowsOptions"]["hostProcess"] == true;
    let setters = setters(set(&pod["spec"]), &containers(pod, set))?;
    violation(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
