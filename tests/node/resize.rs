//! Resources of a running pod that change, as the kernel has them and as the status tells it.

use serde_json::{Value, json};

use crate::isolation::isolated;
use crate::support::{FOREVER, IMAGE, Node, condition, container, restarts};

fn asked(cpu: &str, memory_mib: u64) -> Value {
    let list = json!({"cpu": cpu, "memory": format!("{memory_mib}Mi")});
    json!({"requests": list, "limits": list})
}

/// `free` takes other limits as it runs, `fixed` is restarted for its memory.
fn pod() -> Value {
    let make = |name: &str, policy: &str| {
        let policy = json!([{"resourceName": "memory", "restartPolicy": policy}]);
        json!({
            "name": name, "image": IMAGE, "command": ["sh", "-c", FOREVER],
            "resources": asked("100m", 64), "resizePolicy": policy,
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-n"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [make("free", "NotRequired"), make("fixed", "RestartContainer")],
        },
    })
}

/// Asks for other resources through the subresource; the code and the answer.
pub fn resize(node: &Node, pod: &str, name: &str, resources: &Value) -> (u16, String) {
    let patch = json!({"spec": {"containers": [{"name": name, "resources": resources}]}});
    let socket = node.run.join("api.sock");
    let kind = "Content-Type: application/strategic-merge-patch+json";
    let arguments = [
        "--unix-socket",
        socket.to_str().unwrap(),
        "-X",
        "PATCH",
        "-H",
        kind,
        "-d",
    ];
    let patch = patch.to_string();
    let url = format!("http://localhost/api/v1/namespaces/default/pods/{pod}/resize");
    node.curl(&[&arguments[..], &[patch.as_str()]].concat(), &url)
}

/// Memory limit and CPU quota as the container sees them, on either version of cgroups.
fn limits(node: &Node, name: &str) -> (u64, String) {
    let script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; \
                  cat cpu/cpu.cfs_quota_us cpu.max 2>/dev/null | cut -d' ' -f1";
    let out = node.ok(&["exec", "web-n", "-c", name, "--", "sh", "-c", script]);
    let mut lines = out.lines();
    let memory = lines.next().and_then(|line| line.parse().ok());
    (
        memory.expect("a limit"),
        lines.next().unwrap_or_default().to_owned(),
    )
}

fn given(node: &Node, what: &str, name: &str, resources: &Value) -> Value {
    node.pod_until("web", what, |pod| {
        container(pod, name)["resources"] == *resources
            && condition(pod, "PodResizeInProgress").is_none()
    })
}

// One pod's life, told in order.
#[allow(clippy::too_many_lines)]
#[test]
fn a_running_pod_is_given_other_resources_and_waits_for_those_that_there_are_not() {
    isolated(|place| {
        let mut node = Node::started(place);
        let file = place.join("web.json");
        std::fs::write(&file, pod().to_string()).unwrap();
        node.ok(&["apply", "-f", file.to_str().unwrap()]);
        node.up("web");
        assert_eq!(limits(&node, "free"), (64 << 20, "10000".to_owned()));

        let more = asked("250m", 96);
        assert_eq!(resize(&node, "web-n", "free", &more).0, 200);
        let pod = given(&node, "more in place", "free", &more);
        assert_eq!(
            container(&pod, "free")["allocatedResources"],
            more["requests"]
        );
        assert_eq!(
            pod["status"]["resources"]["limits"],
            json!({"cpu": "350m", "memory": "160Mi"})
        );
        assert_eq!(limits(&node, "free"), (96 << 20, "25000".to_owned()));
        node.event("web", "Normal ResizeStarted Pod resize started: {");
        node.event("web", "Normal ResizeCompleted Pod resize completed: {");
        assert_eq!((restarts(&pod, "free"), restarts(&pod, "fixed")), (0, 0));

        assert_eq!(resize(&node, "web-n", "fixed", &asked("100m", 32)).0, 200);
        node.event(
            "web",
            "Normal Killing Container fixed resize requires restart",
        );
        let pod = node.pod_until("web", "less by a new instance", |pod| {
            restarts(pod, "fixed") == 1 && condition(pod, "Ready") == Some("True")
        });
        assert_eq!(limits(&node, "fixed").0, 32 << 20);
        assert_eq!(restarts(&pod, "free"), 0);

        // More than the node has: it waits, over the death of the agent too.
        assert_eq!(resize(&node, "web-n", "free", &asked("5000", 96)).0, 200);
        let waits = |pod: &Value| {
            let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
            let found = all.find(|one| one["type"] == "PodResizePending");
            found.is_some_and(|one| {
                let text = one["message"].as_str().unwrap_or_default();
                one["reason"] == "Deferred"
                    && text.starts_with("Node didn't have enough resource: cpu, requested: 5000100")
            })
        };
        node.pod_until("web", "waits for room", waits);
        node.event("web", "Warning ResizeDeferred Pod resize Deferred: {");
        node.kill();
        node.start();
        let pod = node.pod_until("web", "still waits", waits);
        assert_eq!(
            container(&pod, "free")["allocatedResources"],
            more["requests"]
        );
        assert_eq!(limits(&node, "free"), (96 << 20, "25000".to_owned()));
        assert_eq!(restarts(&pod, "free"), 0);

        // Less memory than it uses is not forced upon it.
        let fill = "dd if=/dev/zero of=/dev/shm/full bs=1M count=40 2>/dev/null";
        node.ok(&["exec", "web-n", "-c", "free", "--", "sh", "-c", fill]);
        assert_eq!(resize(&node, "web-n", "free", &asked("250m", 16)).0, 200);
        node.pod_until("web", "cannot shrink", |pod| {
            let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
            let found = all.find(|one| one["type"] == "PodResizeInProgress");
            found.is_some_and(|one| one["reason"] == "Error")
        });
        node.event("web", "Warning ResizeError Pod resize error: {");
        assert_eq!(limits(&node, "free").0, 96 << 20);
        assert_eq!(resize(&node, "web-n", "free", &more).0, 200);
        given(&node, "as it was", "free", &more);

        let (code, told) = resize(&node, "web-n", "free", &json!({"limits": {"cpu": "300m"}}));
        assert_eq!(code, 422, "{told}");
        assert!(told.contains("Pod QOS Class may not change"), "{told}");
        node.finish();
    });
}
