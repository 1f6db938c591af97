//! A container on a pod's page.

use serde_json::Value;

use super::page::{Page, list, pairs, plain, time};

pub fn describe(page: &mut Page, container: &Value, status: &Value) {
    page.end_section();
    page.line(2, &plain(&container["name"]), "");
    page.line_if(4, "Container ID", &status["containerID"]);
    page.line_if(4, "Image", &container["image"]);
    page.line_if(4, "Image ID", &status["imageID"]);
    ports(page, container);
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        let words: Vec<&Value> = list(&container[field]).collect();
        if !words.is_empty() {
            page.line(4, title, "");
            words.iter().for_each(|word| page.word(6, &plain(word)));
        }
    }
    state(page, "State", &status["state"]);
    if status["lastState"]
        .as_object()
        .is_some_and(|state| !state.is_empty())
    {
        state(page, "Last State", &status["lastState"]);
    }
    if !status.is_null() {
        page.line(4, "Ready", plain(&status["ready"]));
        page.line(4, "Restart Count", plain(&status["restartCount"]));
    }
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let figures = container["resources"][field].as_object();
        if let Some(figures) = figures.filter(|figures| !figures.is_empty()) {
            page.line(4, title, "");
            figures
                .iter()
                .for_each(|(name, value)| page.line(6, name, plain(value)));
        }
    }
    for (title, field) in [
        ("Liveness", "livenessProbe"),
        ("Readiness", "readinessProbe"),
        ("Startup", "startupProbe"),
    ] {
        if container[field].is_object() {
            page.line(4, title, probe(&container[field]));
        }
    }
    environment(page, container);
    let mounts: Vec<String> = list(&container["volumeMounts"]).map(mount).collect();
    match mounts.is_empty() {
        true => page.line(4, "Mounts", "<none>"),
        false => {
            page.line(4, "Mounts", "");
            mounts.iter().for_each(|mount| page.word(6, mount));
        }
    }
}

fn ports(page: &mut Page, container: &Value) {
    let both = |field: &str| -> Vec<String> {
        let port = |port: &Value| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            format!("{}/{protocol}", port[field].as_u64().unwrap_or(0))
        };
        list(&container["ports"]).map(port).collect()
    };
    if container["ports"].is_array() {
        page.line(4, "Ports", both("containerPort").join(", "));
        page.line(4, "Host Ports", both("hostPort").join(", "));
    }
}

fn state(page: &mut Page, title: &str, state: &Value) {
    let (running, waiting, ended) = (&state["running"], &state["waiting"], &state["terminated"]);
    if running.is_object() {
        page.line(4, title, "Running");
        page.line(6, "Started", time(&running["startedAt"]));
    } else if ended.is_object() {
        page.line(4, title, "Terminated");
        page.line_if(6, "Reason", &ended["reason"]);
        page.line_if(6, "Message", &ended["message"]);
        page.line(6, "Exit Code", plain(&ended["exitCode"]));
        page.line_if(6, "Signal", &ended["signal"]);
        page.line(6, "Started", time(&ended["startedAt"]));
        page.line(6, "Finished", time(&ended["finishedAt"]));
    } else {
        page.line(4, title, "Waiting");
        page.line_if(6, "Reason", &waiting["reason"]);
        page.line_if(6, "Message", &waiting["message"]);
    }
}

/// `http-get http://:80/ delay=0s timeout=1s period=10s #success=1 #failure=3`
pub fn probe(probe: &Value) -> String {
    let figure = |name: &str, default: u64| probe[name].as_u64().unwrap_or(default);
    let http = &probe["httpGet"];
    let port = |value: &Value| plain(&value["port"]);
    let action = if http.is_object() {
        let scheme = http["scheme"]
            .as_str()
            .unwrap_or("HTTP")
            .to_ascii_lowercase();
        let (host, path) = (plain(&http["host"]), http["path"].as_str().unwrap_or("/"));
        format!("http-get {scheme}://{host}:{}{path}", port(http))
    } else if probe["exec"].is_object() {
        let words: Vec<String> = list(&probe["exec"]["command"]).map(plain).collect();
        format!("exec [{}]", words.join(" "))
    } else if probe["tcpSocket"].is_object() {
        let tcp = &probe["tcpSocket"];
        format!("tcp-socket {}:{}", plain(&tcp["host"]), port(tcp))
    } else if probe["grpc"].is_object() {
        format!("grpc <pod>:{}", port(&probe["grpc"]))
    } else {
        "unknown".to_owned()
    };
    format!(
        "{action} delay={}s timeout={}s period={}s #success={} #failure={}",
        figure("initialDelaySeconds", 0),
        figure("timeoutSeconds", 1),
        figure("periodSeconds", 10),
        figure("successThreshold", 1),
        figure("failureThreshold", 3)
    )
}

/// Values from secrets are named, never shown.
fn environment(page: &mut Page, container: &Value) {
    for source in list(&container["envFrom"]) {
        let (kind, reference) = match source["secretRef"].is_object() {
            true => ("Secret", &source["secretRef"]),
            false => ("ConfigMap", &source["configMapRef"]),
        };
        page.line(
            4,
            "Environment Variables from",
            format!("{} {kind}", plain(&reference["name"])),
        );
    }
    let variables: Vec<&Value> = list(&container["env"]).collect();
    if variables.is_empty() {
        return page.line(4, "Environment", "<none>");
    }
    page.line(4, "Environment", "");
    for variable in variables {
        let from = &variable["valueFrom"];
        let key = |kind: &str, title: &str| {
            let reference = &from[kind];
            let (key, name) = (plain(&reference["key"]), plain(&reference["name"]));
            format!("<set to the key '{key}' in {title} '{name}'>")
        };
        let value = if from["secretKeyRef"].is_object() {
            key("secretKeyRef", "secret")
        } else if from["configMapKeyRef"].is_object() {
            key("configMapKeyRef", "config map")
        } else if from["fieldRef"].is_object() {
            format!("({})", plain(&from["fieldRef"]["fieldPath"]))
        } else if from["resourceFieldRef"].is_object() {
            format!("({})", plain(&from["resourceFieldRef"]["resource"]))
        } else {
            plain(&variable["value"])
        };
        page.line(6, &plain(&variable["name"]), value);
    }
}

/// `/data from data (rw,path="x")`
fn mount(mount: &Value) -> String {
    let mode = if mount["readOnly"] == true {
        "ro"
    } else {
        "rw"
    };
    let path = match mount["subPath"].as_str() {
        Some(path) => format!(",path={path:?}"),
        None => String::new(),
    };
    let (at, volume) = (plain(&mount["mountPath"]), plain(&mount["name"]));
    format!("{at} from {volume} ({mode}{path})")
}

/// A volume: what it is, and its settings.
pub fn volume(page: &mut Page, volume: &Value) {
    page.end_section();
    page.line(2, &plain(&volume["name"]), "");
    let sources = volume.as_object().into_iter().flatten();
    for (kind, source) in sources.filter(|(name, _)| *name != "name") {
        page.line(4, "Type", kind);
        for setting in pairs(source, ": ") {
            let (name, value) = setting.split_once(": ").unwrap_or((&setting, ""));
            page.line(4, name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn probes_read_as_in_kubectl() {
        let figures = "delay=0s timeout=1s period=10s #success=1 #failure=3";
        let table = [
            (
                json!({"httpGet": {"port": 80, "path": "/ok"}}),
                "http-get http://:80/ok",
            ),
            (json!({"exec": {"command": ["cat", "/x"]}}), "exec [cat /x]"),
            (json!({"tcpSocket": {"port": "db"}}), "tcp-socket :db"),
            (json!({"grpc": {"port": 9}}), "grpc <pod>:9"),
        ];
        for (value, text) in table {
            assert_eq!(probe(&value), format!("{text} {figures}"));
        }
    }

    #[test]
    fn a_secret_value_is_named_and_not_shown() {
        let mut page = Page::default();
        let from = json!({"secretKeyRef": {"name": "db", "key": "password"}});
        environment(
            &mut page,
            &json!({"env": [{"name": "P", "valueFrom": from}]}),
        );
        let text = page.text();
        assert!(
            text.contains("<set to the key 'password' in secret 'db'>"),
            "{text}"
        );
    }
}
