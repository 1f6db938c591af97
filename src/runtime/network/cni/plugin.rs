//! One call of a plugin: what it is told, what it answers. Pure but for `find`.
//!
//! Source: CNI specification 1.1.0, sections 2 (execution protocol) and 5 (result types).

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::super::rules::protocol_name;
use crate::os::output::Output;
use crate::world::{PortMapping, SandboxConfig};

/// Of what a plugin complains about, as much goes into an error.
const COMPLAINT_CHARS_MAX: usize = 1024;

/// What a sandbox's plugins are told of the pod. Source: containerd, internal/cri/server (cniArgs).
pub fn arguments(pod: &SandboxConfig) -> String {
    let SandboxConfig {
        uid,
        name,
        namespace,
        ..
    } = pod;
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
         K8S_POD_INFRA_CONTAINER_ID={uid};K8S_POD_UID={uid}"
    )
}

/// The pod's hostPorts, as the capability `portMappings` has them.
pub fn port_mappings(ports: &[PortMapping]) -> Value {
    let published = ports.iter().filter(|port| port.host_port != 0);
    let mapping = |port: &PortMapping| {
        let mut mapping = json!({
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": protocol_name(port.protocol),
        });
        if let Some(ip) = port.host_ip {
            mapping["hostIP"] = ip.to_string().into();
        }
        mapping
    };
    published.map(mapping).collect()
}

pub fn maps_ports(plugin: &Value) -> bool {
    plugin["capabilities"]["portMappings"] == true
}

/// The configuration that one plugin of a record's list reads. `result`: of the plugins before it,
/// or of all when a network is taken down.
pub fn input(record: &Value, plugin: &Value, result: Option<&Value>) -> Value {
    let mut input = plugin.clone();
    let Some(fields) = input.as_object_mut() else {
        return input;
    };
    for name in ["name", "cniVersion"] {
        fields.insert(name.to_owned(), record[name].clone());
    }
    if let Some(result) = result {
        fields.insert("prevResult".to_owned(), result.clone());
    }
    let ports = &record["portMappings"];
    if maps_ports(plugin) && ports.as_array().is_some_and(|ports| !ports.is_empty()) {
        let config = json!({ "portMappings": ports });
        fields.insert("runtimeConfig".to_owned(), config);
    }
    input
}

/// The pod's addresses: the first of each family, IPv4 before IPv6.
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let listed = result["ips"].as_array().into_iter().flatten();
    let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    let all: Vec<IpAddr> = listed.filter_map(address).collect();
    let four = all.iter().find(|ip| ip.is_ipv4());
    let six = all.iter().find(|ip| ip.is_ipv6());
    four.into_iter().chain(six).copied().collect()
}

/// What a plugin that failed says. Its error is on stdout; what is none is shown as it is.
pub fn complaint(output: &Output) -> String {
    let error: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let text = |name: &str| error[name].as_str().filter(|text| !text.is_empty());
    let complaint = match (text("msg"), text("details")) {
        (Some(what), Some(details)) => format!("{what}; {details}"),
        (Some(what), None) => what.to_owned(),
        (None, _) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let said = said + String::from_utf8_lossy(&output.stderr);
            match said.trim() {
                "" => "with no error message".to_owned(),
                said => format!("{said:?}"),
            }
        }
    };
    let complaint: String = complaint.chars().take(COMPLAINT_CHARS_MAX).collect();
    match (error["code"].as_u64(), output.ended.code()) {
        (Some(code), _) => format!("{complaint} (code {code})"),
        (None, code) => format!("{complaint} (exit code {code})"),
    }
}

/// Where the program of a plugin is.
pub fn find(directories: &[PathBuf], program: &str) -> Option<PathBuf> {
    let mut files = directories.iter().map(|directory| directory.join(program));
    files.find(|file: &PathBuf| Path::is_file(file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::Ended;
    use crate::world::Protocol;

    #[test]
    fn each_plugin_reads_its_own_part_and_the_result_before_it() {
        let port = |host_port, host_ip: Option<&str>| PortMapping {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            container_port: 80,
            protocol: Protocol::Udp,
        };
        let ports = port_mappings(&[port(0, None), port(8080, None), port(81, Some("10.0.0.1"))]);
        let expected = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "udp"},
            {"hostPort": 81, "containerPort": 80, "protocol": "udp", "hostIP": "10.0.0.1"},
        ]);
        assert_eq!(ports, expected);
        let record = json!({"name": "n", "cniVersion": "1.0.0", "portMappings": ports});
        let silent = json!({"name": "n", "cniVersion": "1.0.0", "portMappings": []});
        let (bridge, result) = (
            json!({"type": "bridge", "name": "other"}),
            json!({"ips": []}),
        );
        let portmap =
            json!({"type": "portmap", "capabilities": {"portMappings": true, "ips": true}});
        let off = json!({"type": "portmap", "capabilities": {"portMappings": false}});
        for (record, plugin, result, more) in [
            (&record, &bridge, None, json!({})),
            (
                &record,
                &bridge,
                Some(&result),
                json!({"prevResult": result}),
            ),
            (
                &record,
                &portmap,
                None,
                json!({"runtimeConfig": {"portMappings": expected}}),
            ),
            (&record, &off, None, json!({})),
            (&silent, &portmap, None, json!({})),
        ] {
            let mut wanted = plugin.clone();
            wanted["name"] = "n".into();
            wanted["cniVersion"] = "1.0.0".into();
            for (name, value) in more.as_object().unwrap() {
                wanted[name] = value.clone();
            }
            assert_eq!(input(record, plugin, result), wanted);
        }
    }

    #[test]
    fn the_first_address_of_each_family_is_the_pods() {
        for (ips, expected) in [
            (
                json!([{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]),
                vec!["10.1.0.5"],
            ),
            (
                json!([{"address": "fd00::5/64"}, {"address": "10.1.0.5/24"}, {"address": "10.1.0.6/24"}]),
                vec!["10.1.0.5", "fd00::5"],
            ),
            (json!([{"address": "nonsense"}, {}, 7]), vec![]),
            (json!(null), vec![]),
        ] {
            let found = addresses(&json!({ "ips": ips }));
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_failure_is_told_in_the_plugins_own_words() {
        for (code, stdout, stderr, expected) in [
            (
                1,
                r#"{"code": 11, "msg": "try again", "details": "busy"}"#,
                "x",
                "try again; busy (code 11)",
            ),
            (
                1,
                r#"{"code": 7, "msg": "bad config", "details": ""}"#,
                "",
                "bad config (code 7)",
            ),
            (2, "", "panic: oh\n", "\"panic: oh\" (exit code 2)"),
            (3, "", "", "with no error message (exit code 3)"),
        ] {
            let output = Output {
                ended: Ended::Exited(code),
                stdout: stdout.into(),
                stderr: stderr.into(),
            };
            assert_eq!(complaint(&output), expected);
        }
    }
}
