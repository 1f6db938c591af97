//! One pod of each kind of need: environment, volumes, order, hooks, probes, ends, security.

use crate::isolation::isolated;
use crate::support::{FOREVER, Node, condition, container, pod, restarts, uid};

const CONFIGURATION: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue, file.txt: 'a file'}
---
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {token: Hx7-very-secret-value}
";

/// Prints lengths instead of the secret: the log is searched for it.
const SEEN: &str = "echo \"env $COLOUR $ALL_colour ${#TOKEN} $NAME $JOINED $FROM_IMAGE $IP\"; \
    echo \"files $(cat /cm/file.txt) $(wc -c </secret/token) $(cat /proj/labels) $(wc -c </proj/t)\"; \
    echo \"modes $(stat -L -c %a /secret/token) $(stat -L -c %a /proj/t)\"; ";

#[test]
fn a_pod_sees_environment_and_volumes_and_its_secret_is_never_on_disk() {
    isolated(|place| {
        let node = Node::started(place);
        node.manifest("settings.yaml", CONFIGURATION);
        let container = "    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: JOINED, value: $(COLOUR)-$(NAME)-$$(X)}
    envFrom: [{configMapRef: {name: settings}, prefix: ALL_}]
    volumeMounts:
    - {name: cm, mountPath: /cm}
    - {name: s, mountPath: /secret, readOnly: true}
    - {name: p, mountPath: /proj}";
        let volumes = "  volumes:
  - {name: cm, configMap: {name: settings}}
  - {name: s, secret: {secretName: keys, defaultMode: 0400}}
  - name: p
    projected:
      sources:
      - downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
      - secret: {name: keys, items: [{key: token, path: t, mode: 0440}]}";
        let text = pod("all", &format!("{SEEN}{FOREVER}"), container, volumes);
        let text = text.replace("{name: all}", "{name: all, labels: {app: sea}}");
        node.manifest("all.yaml", &text);
        let up = node.up("all");
        let ip = up["status"]["podIP"].as_str().unwrap();
        let logs = node.said("all", "started");
        let lines: Vec<_> = logs.lines().collect();
        assert_eq!(
            lines[0],
            format!("env blue blue 21 all-n blue-all-n-$(X) yes {ip}")
        );
        assert_eq!(lines[1], "files a file 21 app=\"sea\" 21");
        assert_eq!(lines[2], "modes 400 440");
        assert_eq!(node.sh("all", "cat /secret/token"), "Hx7-very-secret-value");

        for directory in [&node.root, &node.logs] {
            let found = std::process::Command::new("grep")
                .args(["-rlFa", "--exclude-dir=images", "-e", "Hx7-very-secret"])
                .args(["-e", "SHg3LXZlcnktc2VjcmV0"])
                .arg(directory)
                .output()
                .unwrap();
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            // Volumes of secrets are tmpfs mounts of their own.
            let on_disk = found.lines().filter(|file| !on_tmpfs(file));
            assert_eq!(on_disk.collect::<Vec<_>>(), Vec::<&str>::new());
        }
        node.finish();
    });
}

fn on_tmpfs(file: &str) -> bool {
    crate::isolation::run("stat", &["-f", "-c", "%T", file]).trim() == "tmpfs"
}

#[test]
fn ends_are_told_as_kubernetes_tells_them() {
    isolated(|place| {
        let node = Node::started(place);
        let message = "    terminationMessagePath: /dev/end";
        let never = "  restartPolicy: Never";
        node.manifest(
            "a.yaml",
            &pod("fine", "echo -n bye >/dev/end", message, never),
        );
        node.manifest("b.yaml", &pod("seven", "exit 7", "", never));
        let limit = "    resources: {limits: {memory: 16Mi}}";
        let eat = "exec dd if=/dev/zero of=/dev/null bs=64M count=4";
        node.manifest("c.yaml", &pod("hungry", eat, limit, never));
        let said = "    terminationMessagePolicy: FallbackToLogsOnError";
        node.manifest("d.yaml", &pod("logged", "echo why; exit 1", said, never));
        let failing = "  restartPolicy: OnFailure";
        node.manifest("f.yaml", &pod("again", "exit 1", "", failing));

        let ended = |name: &str, phase: &str| {
            let pod = node.pod_until(name, phase, |pod| pod["status"]["phase"] == phase);
            container(&pod, "c")["state"]["terminated"].clone()
        };
        let fine = ended("fine", "Succeeded");
        assert_eq!(
            (&fine["reason"], &fine["exitCode"]),
            (&"Completed".into(), &0.into())
        );
        assert_eq!(fine["message"], "bye");
        let seven = ended("seven", "Failed");
        assert_eq!(
            (&seven["reason"], &seven["exitCode"]),
            (&"Error".into(), &7.into())
        );
        let hungry = ended("hungry", "Failed");
        assert_eq!(hungry["reason"], "OOMKilled");
        assert_eq!(hungry["exitCode"], 137);
        assert_eq!(ended("logged", "Failed")["message"], "why\n");

        let again = node.pod_until("again", "in back-off", |pod| {
            container(pod, "c")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        });
        assert_eq!(again["status"]["phase"], "Running");
        let waiting = &container(&again, "c")["state"]["waiting"]["message"];
        let waiting = waiting.as_str().unwrap();
        assert!(
            waiting.starts_with("back-off 10s restarting failed container=c pod=again-n"),
            "{waiting}"
        );
        node.event(
            "again",
            "Warning BackOff Back-off restarting failed container c in pod again-n",
        );
        node.pod_until("again", "restarted after it", |pod| restarts(pod, "c") >= 2);
        node.finish();
    });
}

#[test]
fn init_containers_and_sidecars_run_in_order() {
    isolated(|place| {
        let node = Node::started(place);
        let image = crate::support::IMAGE;
        let init = format!(
            "  initContainers:
  - {{name: one, image: '{image}', command: [sh, -c, 'sleep 0.3; echo one >>/v/order'], volumeMounts: [{{name: v, mountPath: /v}}]}}
  - name: side
    image: {image}
    restartPolicy: Always
    command: [sh, -c, \"trap 'echo side-end >>/v/order; exit 0' TERM; echo side >>/v/order; sleep 0.3; touch /v/ok; while :; do sleep 1 & wait $!; done\"]
    startupProbe: {{exec: {{command: [test, -e, /v/ok]}}, periodSeconds: 1}}
    volumeMounts: [{{name: v, mountPath: /v}}]
  - {{name: two, image: '{image}', command: [sh, -c, 'test -e /v/ok && echo two >>/v/order'], volumeMounts: [{{name: v, mountPath: /v}}]}}
  volumes: [{{name: v, hostPath: {{path: {}, type: DirectoryOrCreate}}}}]",
            place.join("shared").display()
        );
        let mount = "    volumeMounts: [{name: v, mountPath: /v}]";
        let script = "trap 'echo main-end >>/v/order; exit 0' TERM; echo main >>/v/order; while :; do sleep 1 & wait $!; done";
        node.manifest(
            "p.yaml",
            &pod("order", script, mount, &init).replace("PeriodSeconds: 1", "PeriodSeconds: 5"),
        );
        let up = node.up("order");
        assert_eq!(condition(&up, "Initialized"), Some("True"));
        assert_eq!(
            container(&up, "one")["state"]["terminated"]["reason"],
            "Completed"
        );
        assert_eq!(container(&up, "side")["started"], true);
        let order = || std::fs::read_to_string(place.join("shared/order")).unwrap();
        let lines = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
        crate::support::eventually("main ran", || order().contains("main"));
        assert_eq!(lines(order()), "one side two main");
        node.remove_manifest("p.yaml");
        node.gone("order");
        // Sidecars end after the containers that may need them.
        assert_eq!(lines(order()), "one side two main main-end side-end");
        node.finish();
    });
}

#[test]
fn pods_beyond_max_pods_wait_until_one_has_gone() {
    isolated(|place| {
        let node = Node::new(place).flag("--max-pods=1");
        let mut node = node.flag("--register-with-taints=edge=yes:NoSchedule");
        node.start_plain();
        node.manifest("a.yaml", &pod("first", FOREVER, "", ""));
        let first = node.up("first");
        node.manifest("b.yaml", &pod("second", FOREVER, "", ""));
        node.event(
            "second",
            "Warning OutOfpods Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1",
        );
        // The next agent lets in whom it finds running.
        node.kill();
        node.start();
        node.event("second", "Warning OutOfpods ");
        let kept = node.up("first");
        assert_eq!((uid(&kept), restarts(&kept, "c")), (uid(&first), 0));
        let waiting = node.pod("second").expect("shown");
        assert_eq!(waiting["status"]["phase"], "Pending");
        let taint = &node.list("nodes")[0]["spec"]["taints"][0];
        assert_eq!(
            (&taint["key"], &taint["effect"]),
            (&"edge".into(), &"NoSchedule".into())
        );
        node.remove_manifest("a.yaml");
        node.up("second");
        node.finish();
    });
}

#[test]
fn a_missing_image_is_not_pulled_before_the_first_scan() {
    isolated(|place| {
        let mut node = Node::new(place);
        // Pod and archive are there before the node: who pulls at once fails, no registry answers.
        node.manifest("a.yaml", &pod("first", FOREVER, "", ""));
        node.start();
        node.up("first");
        let events = node.events("first");
        let pulls = events.iter().filter(|event| event.contains(" Pulling "));
        assert_eq!(pulls.count(), 0, "{events:#?}");
        assert!(events.iter().any(|event| event.contains("already present")));
        node.finish();
    });
}
