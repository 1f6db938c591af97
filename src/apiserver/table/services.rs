//! Rows of services and endpoints.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, age, name, plain, text_or, wide};

pub const SERVICE_COLUMNS: &[Column] = &[
    plain("Name"),
    plain("Type"),
    plain("Cluster-IP"),
    plain("External-IP"),
    plain("Port(s)"),
    plain("Age"),
    wide("Selector"),
];
pub const ENDPOINTS_COLUMNS: &[Column] = &[plain("Name"), plain("Endpoints"), plain("Age")];

/// Addresses that a row names; the others are counted.
const ENDPOINTS_SHOWN_MAX: usize = 3;

pub fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let cluster_ip = match &spec["clusterIPs"][0] {
        Value::Null => &spec["clusterIP"],
        first => first,
    };
    vec![
        name(object),
        text_or(&spec["type"], "<unknown>").into(),
        text_or(cluster_ip, "<none>").into(),
        external_ip(object).into(),
        ports(&spec["ports"]).into(),
        age(object, now),
        selector(&spec["selector"]).into(),
    ]
}

pub fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), addresses(object).into(), age(object, now)]
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let mut all: Vec<&str> = Vec::new();
    match spec["type"].as_str() {
        Some("ExternalName") => return text_or(&spec["externalName"], "").to_owned(),
        Some("LoadBalancer") => {
            let given = service["status"]["loadBalancer"]["ingress"].as_array();
            let given = given.into_iter().flatten();
            all.extend(given.filter_map(|one| one["ip"].as_str().or(one["hostname"].as_str())));
        }
        _ => {}
    }
    let stated = spec["externalIPs"].as_array().into_iter().flatten();
    all.extend(stated.filter_map(Value::as_str));
    match (all.is_empty(), spec["type"].as_str()) {
        (true, Some("LoadBalancer")) => "<pending>".to_owned(),
        (true, _) => "<none>".to_owned(),
        (false, _) => all.join(","),
    }
}

/// `80/TCP,443:30443/TCP`
fn ports(ports: &Value) -> String {
    let texts: Vec<String> = ports
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let number = &port["port"];
            let protocol = text_or(&port["protocol"], "TCP");
            match port["nodePort"].as_u64().filter(|node_port| *node_port > 0) {
                Some(node_port) => format!("{number}:{node_port}/{protocol}"),
                None => format!("{number}/{protocol}"),
            }
        })
        .collect();
    or_none(texts.join(","))
}

fn selector(selector: &Value) -> String {
    let pairs = selector.as_object().into_iter().flatten();
    let pairs = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    or_none(pairs.collect::<Vec<_>>().join(","))
}

fn addresses(endpoints: &Value) -> String {
    let mut all = Vec::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        let addresses = subset["addresses"].as_array().into_iter().flatten();
        let ips: Vec<&str> = addresses
            .filter_map(|address| address["ip"].as_str())
            .collect();
        match subset["ports"].as_array().filter(|ports| !ports.is_empty()) {
            None => all.extend(ips.iter().map(|ip| (*ip).to_owned())),
            Some(ports) => {
                for port in ports {
                    all.extend(ips.iter().map(|ip| joined(ip, &port["port"])));
                }
            }
        }
    }
    let more = all.len().saturating_sub(ENDPOINTS_SHOWN_MAX);
    all.truncate(ENDPOINTS_SHOWN_MAX);
    match more {
        0 => or_none(all.join(",")),
        more => format!("{} + {more} more...", all.join(",")),
    }
}

fn joined(ip: &str, port: &Value) -> String {
    match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    }
}

fn or_none(text: String) -> String {
    match text.is_empty() {
        true => "<none>".to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn services_show_how_they_are_reached() {
        let table = [
            (
                json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "ports": [{"port": 80}]}),
                ["ClusterIP", "10.0.0.1", "<none>", "80/TCP", "<none>"],
            ),
            (
                json!({"type": "NodePort", "clusterIPs": ["10.0.0.1"], "selector": {"a": "b"},
                       "externalIPs": ["1.1.1.1"],
                       "ports": [{"port": 80, "nodePort": 30080, "protocol": "UDP"}]}),
                ["NodePort", "10.0.0.1", "1.1.1.1", "80:30080/UDP", "a=b"],
            ),
            (
                json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}),
                ["LoadBalancer", "10.0.0.1", "<pending>", "<none>", "<none>"],
            ),
            (
                json!({"type": "ExternalName", "externalName": "x.example"}),
                ["ExternalName", "<none>", "x.example", "<none>", "<none>"],
            ),
        ];
        for (spec, expected) in table {
            let cells = service(
                &json!({"metadata": {"name": "s"}, "spec": spec}),
                Timestamp::UNIX_EPOCH,
            );
            let shown = [&cells[1], &cells[2], &cells[3], &cells[4], &cells[6]];
            assert_eq!(
                shown.map(|cell| cell.as_str().unwrap_or_default()),
                expected
            );
        }
    }

    #[test]
    fn three_endpoints_are_named_and_the_others_counted() {
        let ips: Vec<Value> = (1..=5)
            .map(|n| json!({"ip": format!("10.0.0.{n}")}))
            .collect();
        let some = json!({"subsets": [{"addresses": ips, "ports": [{"port": 80}]}]});
        let text = "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...";
        assert_eq!(addresses(&some), text);
        let bare = json!({"subsets": [{"addresses": [{"ip": "fd::1"}]}]});
        assert_eq!(addresses(&bare), "fd::1");
        assert_eq!(addresses(&json!({})), "<none>");
    }
}
