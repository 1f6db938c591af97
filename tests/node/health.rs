//! Probes, hooks, grace periods, security and the network as seen from inside.

use std::net::TcpStream;

use serde_json::json;

use crate::isolation::{isolated, run};
use crate::support::{FOREVER, Node, condition, container, eventually, pod, restarts};

#[test]
fn probes_restart_gate_and_flip() {
    isolated(|place| {
        let node = Node::started(place);
        let exec = "    livenessProbe: {exec: {command: [sh, -c, 'test ! -e /tmp/sick || { echo ill; exit 1; }']}, periodSeconds: 1, failureThreshold: 1}
    readinessProbe: {exec: {command: [test, -e, /tmp/ready]}, periodSeconds: 1}";
        node.manifest("a.yaml", &pod("exec", FOREVER, exec, ""));
        let http = "    startupProbe: {httpGet: {port: web, path: /up}, periodSeconds: 1, failureThreshold: 600}
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    ports: [{name: web, containerPort: 8080}]";
        let serve = "mkdir /tmp/w; httpd -p 8080 -h /tmp/w; trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";
        node.manifest("b.yaml", &pod("http", serve, http, ""));

        node.event("exec", "Warning Unhealthy Readiness probe failed: ");
        let running = node.pod("exec").unwrap();
        assert_eq!(condition(&running, "Ready"), Some("False"));
        node.sh("exec", "touch /tmp/ready");
        node.up("exec");
        node.sh("exec", "rm /tmp/ready");
        node.pod_until("exec", "unready", |pod| {
            condition(pod, "Ready") == Some("False")
        });
        node.sh("exec", "touch /tmp/sick");
        node.event("exec", "Warning Unhealthy Liveness probe failed: ill");
        node.event(
            "exec",
            "Normal Killing Container c failed liveness probe, will be restarted",
        );
        node.pod_until("exec", "restarted", |pod| restarts(pod, "c") == 1);

        node.event(
            "http",
            "Warning Unhealthy Startup probe failed: HTTP probe failed with statuscode: 404",
        );
        let starting = node.pod("http").unwrap();
        assert_eq!(container(&starting, "c")["started"], false);
        assert_eq!(container(&starting, "c")["ready"], false);
        node.sh("http", "echo fine >/tmp/w/up");
        let up = node.up("http");
        assert_eq!(container(&up, "c")["started"], true);
        assert_eq!(restarts(&up, "c"), 0);
        node.finish();
    });
}

#[test]
fn hooks_run_and_a_deaf_container_is_killed_after_its_grace_period() {
    isolated(|place| {
        let node = Node::started(place);
        let hooks = "    lifecycle:
      postStart: {exec: {command: [sh, -c, 'echo post >>/v/hooks']}}
      preStop: {exec: {command: [sh, -c, 'echo pre >>/v/hooks']}}
    volumeMounts: [{name: v, mountPath: /v}]";
        let volume = format!(
            "  volumes: [{{name: v, hostPath: {{path: {}}}}}]",
            place.display()
        );
        node.manifest("a.yaml", &pod("hooked", FOREVER, hooks, &volume));
        let bad = "    lifecycle: {postStart: {exec: {command: [sh, -c, 'echo no; exit 3']}}}";
        node.manifest("b.yaml", &pod("bad", FOREVER, bad, ""));
        node.manifest(
            "c.yaml",
            &pod("deaf", "trap '' TERM; while :; do sleep 1; done", "", ""),
        );
        node.up("hooked");
        node.event("bad", "Warning FailedPostStartHook PostStartHook failed");
        node.up("deaf");
        let text = || std::fs::read_to_string(place.join("hooks")).unwrap_or_default();
        assert_eq!(text(), "post\n");
        node.remove_manifest("a.yaml");
        node.remove_manifest("c.yaml");
        node.gone("hooked");
        assert_eq!(text(), "post\npre\n");
        node.gone("deaf");
        node.event("deaf", "Normal Killing Stopping container c");
        node.finish();
    });
}

/// The status of a pod of user 1000 and group 1001 agrees with its process and its spec.
fn shows_what_it_was_given(node: &Node, name: &str) {
    let groups = node.sh(name, "grep Groups: /proc/1/status");
    let groups: Vec<u64> = groups
        .split_whitespace()
        .filter_map(|group| group.parse().ok())
        .collect();
    let pod = node.up(name);
    let shown = container(&pod, "c");
    let linux = json!({"uid": 1000, "gid": 1001, "supplementalGroups": groups});
    assert_eq!(shown["user"]["linux"], linux);
    let below =
        json!({"name": "v", "mountPath": "/w", "readOnly": true, "recursiveReadOnly": "Disabled"});
    assert_eq!(shown["volumeMounts"][1], below);
    assert_eq!(shown["resources"]["limits"]["memory"], "64Mi");
    assert_eq!(shown["allocatedResources"]["memory"], "16Mi");
    let limits = json!({"cpu": "500m", "memory": "64Mi"});
    assert_eq!(pod["status"]["resources"]["limits"], limits);
}

#[test]
fn security_context_and_namespaces_show_inside() {
    isolated(|place| {
        let node = Node::started(place);
        let look = "id; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x 2>&1; stat -c %g /v; echo started; exec sleep 1000";
        let context = "    securityContext:
      runAsUser: 1000
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
      seccompProfile: {type: RuntimeDefault}
    resources: {requests: {memory: 16Mi}, limits: {cpu: 500m, memory: 64Mi}}
    volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /w, readOnly: true}]";
        let spec =
            "  securityContext: {runAsGroup: 1001, supplementalGroups: [3000], fsGroup: 4000}
  volumes: [{name: v, emptyDir: {}}]";
        node.manifest("a.yaml", &pod("tight", look, context, spec));
        let shared = "  shareProcessNamespace: true";
        node.manifest("b.yaml", &pod("shared", FOREVER, "", shared));
        let host = "  hostNetwork: true";
        node.manifest("c.yaml", &pod("host", FOREVER, "", host));
        let port = "    ports: [{containerPort: 8080, hostPort: 8090}]";
        let serve = "mkdir /tmp/w; echo hello-port >/tmp/w/x; exec httpd -f -p 8080 -h /tmp/w";
        node.manifest("d.yaml", &pod("port", serve, port, ""));
        let root = "    securityContext: {runAsNonRoot: true}";
        node.manifest("e.yaml", &pod("root", FOREVER, root, ""));

        let seen = node.said("tight", "started");
        assert!(seen.contains("uid=1000(app) gid=1001"), "{seen}");
        assert!(seen.contains("3000") && seen.contains("4000"), "{seen}");
        assert!(seen.contains("CapEff:\t0000000000000000"), "{seen}");
        assert!(
            seen.contains("NoNewPrivs:\t1") && seen.contains("Seccomp:\t2"),
            "{seen}"
        );
        assert!(seen.contains("Read-only file system"), "{seen}");
        assert!(seen.contains("\n4000\n"), "{seen}");
        shows_what_it_was_given(&node, "tight");

        node.up("shared");
        let processes = node.sh("shared", "ps");
        assert!(processes.contains("pause"), "{processes}");
        node.up("host");
        assert_eq!(
            node.sh("host", "readlink /proc/self/ns/net").trim(),
            run("readlink", &["/proc/self/ns/net"]).trim()
        );
        let up = node.up("port");
        // hostPort answers on the host's own addresses.
        let address = up["status"]["podIP"].as_str().unwrap().to_owned();
        eventually("the server listens", || {
            TcpStream::connect((&*address, 8080)).is_ok()
        });
        let answer = run(
            "busybox",
            &["wget", "-q", "-O", "-", &format!("http://{address}:8080/x")],
        );
        assert_eq!(answer, "hello-port\n");
        let answer = run(
            "busybox",
            &["wget", "-q", "-O", "-", "http://127.0.0.1:8090/x"],
        );
        assert_eq!(answer, "hello-port\n");
        node.pod_until("root", "refused", |pod| {
            container(pod, "c")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        });
        node.event(
            "root",
            "container has runAsNonRoot and image will run as root",
        );
        node.finish();
    });
}
