//! Deaths of the agent, a shim, pause, runc; a reboot; another agent beside or after one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::isolation::{isolated, run};
use crate::support::{
    FOREVER, Node, container, eventually, mounts, pids_of, pod, restarts, signal, uid, wait_for,
};

/// Beats twice a second; a second instance would hold the lock's directory and say so.
fn beating(name: &str, shared: &Path) -> String {
    let script = "mkdir /v/$HOSTNAME.lock || echo TWICE >>/v/twice; \
        trap 'rmdir /v/$HOSTNAME.lock; exit 0' TERM; i=0; \
        while :; do i=$((i+1)); echo beat $i; sleep 0.2 & wait $!; done";
    let mount = "    volumeMounts: [{name: v, mountPath: /v}]
    livenessProbe: {exec: {command: [sleep, '0.1']}, periodSeconds: 1}";
    let path = shared.display();
    let volume = format!("  volumes: [{{name: v, hostPath: {{path: {path}}}}}]");
    pod(name, script, mount, &volume)
}

/// Numbers of the beats in a log: 1, 2, 3 … without a gap.
fn beats_in_order(log: &str) -> usize {
    let beats: Vec<usize> = log
        .lines()
        .filter_map(|l| l.strip_prefix("beat ")?.parse().ok())
        .collect();
    let wanted: Vec<usize> = (1..=beats.len()).collect();
    assert_eq!(beats, wanted, "a line was lost or doubled");
    beats.len()
}

#[test]
fn a_manifest_that_is_renamed_while_no_agent_runs_never_doubles_its_pod() {
    isolated(|place| {
        let shared = place.join("shared");
        fs::create_dir(&shared).unwrap();
        let mut node = Node::started(place);
        node.manifest("old.yaml", &beating("one", &shared));
        let first = node.up("one");
        node.kill();
        // Another file is another pod, of the same name.
        let file = |name| node.manifests.join(name);
        fs::rename(file("old.yaml"), file("new.yaml")).unwrap();
        node.start();
        let second = node.pod_until("one", "the successor runs", |pod| {
            uid(pod) != uid(&first) && pod["status"]["phase"] == "Running"
        });
        assert_eq!(restarts(&second, "c"), 0);
        beats_in_order(&node.logs_of("one"));
        assert!(!shared.join("twice").exists(), "both ran at a time");
        node.finish();
    });
}

#[test]
fn an_agent_killed_at_any_moment_harms_no_pod() {
    isolated(|place| {
        let shared = place.join("shared");
        fs::create_dir(&shared).unwrap();
        let mut node = Node::started(place);
        node.manifest("stays.yaml", &beating("stays", &shared));
        node.up("stays");
        let first = node.up("stays");
        // Seeded, so that a failure can be repeated.
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for round in 0..15 {
            let name = format!("r{}.yaml", round % 3);
            match round / 3 % 2 {
                0 => node.manifest(&name, &beating(&format!("r{}", round % 3), &shared)),
                _ => node.remove_manifest(&name),
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            std::thread::sleep(Duration::from_millis(random % 350));
            node.kill();
            node.begin("--exit-stops-pods");
            if round % 4 != 3 {
                node.ready();
            }
        }
        node.ready();
        for round in 0..3 {
            node.up(&format!("r{round}"));
        }
        let stays = node.up("stays");
        assert_eq!((uid(&stays), restarts(&stays, "c")), (uid(&first), 0));
        assert_eq!(
            container(&stays, "c")["containerID"],
            container(&first, "c")["containerID"]
        );
        for name in ["stays", "r0", "r1", "r2"] {
            assert_eq!(restarts(&node.up(name), "c"), 0, "{name}");
            beats_in_order(&node.logs_of(name));
        }
        let before = beats_in_order(&node.logs_of("stays"));
        eventually("it goes on", || {
            beats_in_order(&node.logs_of("stays")) > before
        });
        assert!(!shared.join("twice").exists(), "two instances at once");
        node.finish();
    });
}

#[test]
fn sigterm_leaves_pods_running_for_the_next_agent_and_one_run_dir_has_one_agent() {
    isolated(|place| {
        // A path that no socket address can hold.
        let deep = place.join("d".repeat(120)).join("e".repeat(60));
        let mut node = Node::with_run(place, deep.join("run"));
        node.start_plain();
        node.manifest("a.yaml", &pod("long", FOREVER, "", ""));
        let first = node.up("long");

        let second = Command::new(crate::support::LOWTIDE)
            .args(["run", "--root-dir"])
            .arg(place.join("other"))
            .arg("--run-dir")
            .arg(&node.run)
            .output()
            .unwrap();
        assert!(!second.status.success());
        let text = String::from_utf8_lossy(&second.stderr);
        assert!(
            text.contains("another lowtide runs with --run-dir="),
            "{text}"
        );
        assert_eq!(text.trim_end().lines().count(), 1, "{text}");

        assert_eq!(node.terminate(), Some(0));
        assert!(!pids_of(" shim ").is_empty());
        node.start();
        let adopted = node.up("long");
        assert_eq!(uid(&adopted), uid(&first));
        assert_eq!(container(&adopted, "c"), container(&first, "c"));
        assert_eq!(node.sh("long", "echo in"), "in\n");
        node.finish();
    });
}

#[test]
fn the_watchdog_is_fed_while_pods_end_slowly() {
    isolated(|place| {
        let path = place.join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut node = Node::new(place);
        node.variables = vec![
            ("NOTIFY_SOCKET", path.display().to_string()),
            ("WATCHDOG_USEC", "400000".to_owned()),
        ];
        // Reads on, since a full socket would hold the node up.
        let told = std::thread::spawn(move || {
            let mut bytes = [0; 128];
            let next = std::iter::from_fn(|| {
                let length = manager.recv(&mut bytes).unwrap();
                Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
            });
            next.take_while(|state| state != "the end")
                .collect::<Vec<_>>()
        });
        node.start();
        let script = "trap 'sleep 2; exit 0' TERM; while :; do sleep 0.1; done";
        let patient = pod("slow", script, "", "").replace(
            "Seconds: 1
",
            "Seconds: 20
",
        );
        node.manifest("slow.yaml", &patient);
        node.up("slow");
        assert_eq!(node.terminate(), Some(0));
        UnixDatagram::unbound()
            .unwrap()
            .send_to(b"the end", &path)
            .unwrap();
        let told = told.join().unwrap();
        let stopping = told
            .iter()
            .position(|state| state == "STOPPING=1")
            .expect("said");
        let fed = told[stopping..]
            .iter()
            .filter(|state| *state == "WATCHDOG=1")
            .count();
        assert!(fed >= 3, "{told:?}");
    });
}

#[test]
fn a_dead_shim_or_pause_costs_at_most_a_restart() {
    isolated(|place| {
        let node = Node::started(place);
        node.manifest("a.yaml", &pod("p", FOREVER, "", ""));
        let up = node.up("p");
        let shim = pids_of(" shim ");
        assert_eq!(shim.len(), 1, "{shim:?}");
        signal(shim[0], "KILL");
        eventually("a new shim", || {
            let shims = pids_of(" shim ");
            shims.len() == 1 && shims != shim
        });
        let after = node.up("p");
        assert_eq!((uid(&after), restarts(&after, "c")), (uid(&up), 0));
        eventually("exec works", || {
            let output = node.client(&["exec", "p-n", "--", "echo", "alive"]);
            output.stdout == b"alive\n"
        });

        let pause =
            fs::read_to_string(node.run.join(format!("pods/{}/sandbox.json", uid(&up)))).unwrap();
        let pause: serde_json::Value = serde_json::from_str(&pause).unwrap();
        let pid = find_pid(&pause).unwrap_or_else(|| panic!("a pid in {pause:#}"));
        signal(pid, "KILL");
        node.event(
            "p",
            "Normal SandboxChanged Pod sandbox changed, it will be killed and re-created.",
        );
        let rebuilt = node.pod_until("p", "restarted", |pod| {
            restarts(pod, "c") == 1 && crate::support::condition(pod, "Ready") == Some("True")
        });
        assert_eq!(uid(&rebuilt), uid(&up));
        node.finish();
    });
}

/// The pause process's pid, wherever the record keeps it.
fn find_pid(value: &serde_json::Value) -> Option<u32> {
    let object = value.as_object()?;
    let own = object
        .get("pid")
        .and_then(|pid| u32::try_from(pid.as_u64()?).ok());
    own.or_else(|| object.values().find_map(find_pid))
}

/// A runtime that hangs or dies while a file says so, and else is runc.
fn wrapper(place: &Path) -> std::path::PathBuf {
    let path = place.join("runc");
    let order = place.join("order");
    let runc = run("sh", &["-c", "command -v runc"]);
    let text = format!(
        "#!/bin/sh\nfor w; do case $w in run|delete) verb=$w; break;; esac; done\n\
         case $(cat {order} 2>/dev/null) in\n\
         hang-$verb) rm {order}; sleep 1000;;\n\
         die-$verb) rm {order}; kill -9 $$;;\n\
         half-$verb) rm {order}; {runc} \"$@\" & sleep 0.02; kill -9 $!; kill -9 $$;;\nesac\nexec {runc} \"$@\"\n",
        order = order.display(),
        runc = runc.trim(),
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_runtime_that_dies_or_an_agent_that_dies_in_its_hang_is_repeated() {
    isolated(|place| {
        let runtime = wrapper(place);
        let mut node = Node::new(place).flag(&format!("--runtime={}", runtime.display()));
        node.start();
        for (index, order) in ["die-run", "half-run", "hang-run"].iter().enumerate() {
            fs::write(place.join("order"), order).unwrap();
            let name = format!("p{index}");
            node.manifest(&format!("{name}.yaml"), &pod(&name, FOREVER, "", ""));
            eventually("the runtime was called", || !place.join("order").exists());
            if order.starts_with("hang") {
                let sleeps = || Some(pids_of("sleep 1000")).filter(|pids| !pids.is_empty());
                let hung = wait_for("the runtime hangs", sleeps);
                node.kill();
                // As an operator would end it.
                hung.into_iter().for_each(|pid| signal(pid, "KILL"));
                node.start();
            }
            node.up(&name);
        }
        fs::write(place.join("order"), "die-delete").unwrap();
        node.remove_manifest("p0.yaml");
        node.gone("p0");
        let _ = fs::remove_file(place.join("order"));
        node.finish();
    });
}

/// Ends everything as a power cut does: no teardown, RUN lost, mounts gone.
pub fn reboot(node: &mut Node) {
    node.kill();
    for _ in 0..3 {
        for (pid, command) in crate::support::processes() {
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if cgroup.contains("/lowtide-test-") || command.contains(" shim ") {
                let _ = Command::new("sh")
                    .args(["-c", &format!("kill -9 {pid}")])
                    .output();
            }
        }
    }
    let top = format!("{}/", node.place.display());
    for mount in mounts()
        .iter()
        .rev()
        .filter(|mount| mount.starts_with(&top))
    {
        run("umount", &["-l", mount]);
    }
    for link in crate::support::links().iter().filter(|link| *link != "lo") {
        let _ = Command::new("ip").args(["link", "del", link]).output();
    }
    run("nft", &["flush", "ruleset"]);
    for root in crate::isolation::cgroup_roots(&node.place) {
        eventually("cgroups are empty", || {
            for directory in crate::isolation::directories(&root) {
                let _ = fs::remove_dir(directory);
            }
            !root.exists()
        });
    }
    fs::remove_dir_all(&node.run).unwrap();
}

#[test]
fn a_reboot_brings_pods_back_and_runs_no_finished_pod_again() {
    isolated(|place| {
        let mut node = Node::started(place);
        let volume = format!(
            "  restartPolicy: Never\n  volumes: [{{name: v, hostPath: {{path: {}}}}}]",
            place.display()
        );
        let mount = "    volumeMounts: [{name: v, mountPath: /v}]";
        node.manifest(
            "once.yaml",
            &pod("once", "echo ran >>/v/ran; exit 3", mount, &volume),
        );
        node.manifest("a.yaml", &pod("back", FOREVER, "", ""));
        let crash = "echo run $(cat /v/count 2>/dev/null); echo x >>/v/count; [ $(wc -l </v/count) -gt 1 ] || exit 1; exec sleep 1000";
        let volume = format!(
            "  volumes: [{{name: v, hostPath: {{path: {}}}}}]",
            place.display()
        );
        node.manifest("c.yaml", &pod("counted", crash, mount, &volume));
        let first = node.up("back");
        node.pod_until("once", "failed", |pod| pod["status"]["phase"] == "Failed");
        node.pod_until("counted", "restarted", |pod| {
            restarts(pod, "c") == 1 && pod["status"]["containerStatuses"][0]["ready"] == true
        });
        reboot(&mut node);
        // The kernel is the same one: as if it had been another.
        let noted = fs::read_to_string(node.root.join("boot.json")).expect("a record");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(noted.contains(boot.trim()), "{noted}");
        let other = noted.replace(boot.trim(), "another");
        fs::write(node.root.join("boot.json"), other).unwrap();
        fs::remove_file(node.images.join("busybox.tar")).unwrap();
        node.start();
        let back = node.pod_until("back", "back with a new container", |pod| {
            let id = &container(pod, "c")["containerID"];
            pod["status"]["phase"] == "Running"
                && *id != container(&first, "c")["containerID"]
                && !id.is_null()
        });
        assert_eq!(uid(&back), uid(&first));
        assert_eq!(restarts(&back, "c"), 1);
        let text = format!(
            "Warning Rebooted Node n has been rebooted, boot id: {}",
            boot.trim()
        );
        node.event("n", &text);
        let counted = node.up("counted");
        assert_eq!(restarts(&counted, "c"), 2);
        let once = node.pod_until("once", "still failed", |pod| {
            pod["status"]["phase"] == "Failed"
        });
        assert_eq!(container(&once, "c")["state"]["terminated"]["exitCode"], 3);
        assert_eq!(fs::read_to_string(place.join("ran")).unwrap(), "ran\n");
        node.finish();
    });
}

#[test]
fn a_broken_or_newer_store_is_set_aside_and_pods_go_on() {
    isolated(|place| {
        let mut node = Node::started(place);
        node.manifest("a.yaml", &pod("p", FOREVER, "", ""));
        let first = node.up("p");
        for text in [b"not a store at all".repeat(500), Vec::new()] {
            node.kill();
            fs::write(node.root.join("store.redb"), &text).unwrap();
            node.start();
            let kept = node.up("p");
            assert_eq!((uid(&kept), restarts(&kept, "c")), (uid(&first), 0));
            if !text.is_empty() {
                assert!(
                    node.log().contains("starting with an empty store"),
                    "{}",
                    node.log()
                );
            }
        }
        let names = fs::read_dir(&node.root).unwrap().flatten();
        let aside = names.filter(|e| e.file_name().to_string_lossy().starts_with("store.redb."));
        assert!(aside.count() >= 1, "the old store is kept for a look");
        node.finish();
    });
}

#[test]
fn two_nodes_on_one_kernel_do_not_touch_each_other() {
    isolated(|place| {
        let (one, two) = (place.join("one"), place.join("two"));
        let mut first = Node::new(&one).flag("--pod-cidr=10.91.0.0/24");
        let mut second = Node::new(&two).flag("--pod-cidr=10.92.0.0/24");
        // Both below one cgroup, where they tell their pods apart by what they recorded.
        first.cgroup_place = place.to_path_buf();
        second.cgroup_place = place.to_path_buf();
        // Who comes first makes what both use.
        second.start();
        first.start();
        let port = "    ports: [{containerPort: 80, hostPort: 8091}]";
        first.manifest("a.yaml", &pod("same", FOREVER, "", ""));
        second.manifest("a.yaml", &pod("same", FOREVER, port, ""));
        first.up("same");
        let before = second.up("same");
        assert_eq!(first.terminate(), Some(0));
        let after = second.up("same");
        assert_eq!(container(&after, "c"), container(&before, "c"));
        assert_eq!(second.sh("same", "echo in"), "in\n");
        let link = crate::support::links()
            .into_iter()
            .filter(|link| link.starts_with("lt-"));
        assert_eq!(link.count(), 1, "one bridge is left");
        second.finish();
        assert_eq!(first.left(), Vec::<String>::new());
    });
}

#[test]
fn an_agent_killed_while_a_probe_runs_leaves_no_exec_behind() {
    isolated(|place| {
        let mut node = Node::started(place);
        let probe = "    livenessProbe: {exec: {command: [sleep, '3.25']}, periodSeconds: 1, timeoutSeconds: 60}";
        node.manifest("a.yaml", &pod("p", FOREVER, probe, ""));
        let first = node.up("p");
        for _ in 0..3 {
            eventually("the probe runs", || !pids_of("sleep 3.25").is_empty());
            node.kill();
            node.start();
            let probes = pids_of("sleep 3.25");
            assert!(probes.len() <= 2, "probes pile up: {probes:?}");
        }
        let after = node.up("p");
        assert_eq!(container(&after, "c"), container(&first, "c"));
        node.remove_manifest("a.yaml");
        node.gone("p");
        assert!(pids_of("sleep 3.25").is_empty());
        node.finish();
    });
}

#[test]
fn a_lost_store_and_a_silent_source_end_nobody() {
    isolated(|place| {
        let mut node = Node::started(place);
        node.manifest("a.yaml", &pod("stays", FOREVER, "", ""));
        node.manifest("b.yaml", &pod("goes", FOREVER, "", ""));
        let before = [node.up("stays"), node.up("goes")];
        node.kill();
        fs::remove_file(node.root.join("store.redb")).unwrap();
        let aside = place.join("aside");
        fs::rename(&node.manifests, &aside).unwrap();
        // Root reads everything but this.
        std::os::unix::fs::symlink(&node.manifests, &node.manifests).unwrap();
        node.begin("--exit-stops-pods");
        eventually("the silent source is named", || {
            node.log().contains("no complete list yet of source file")
        });
        let runs = |pod: &serde_json::Value| node.run.join("pods").join(uid(pod)).exists();
        assert!(before.iter().all(runs), "{}", node.log());
        fs::remove_file(&node.manifests).unwrap();
        fs::rename(&aside, &node.manifests).unwrap();
        node.remove_manifest("b.yaml");
        eventually("who is not wanted ends", || !runs(&before[1]));
        let kept = node.up("stays");
        assert_eq!((uid(&kept), restarts(&kept, "c")), (uid(&before[0]), 0));
        node.finish();
    });
}

#[test]
fn critical_pods_stop_once_the_others_have() {
    isolated(|place| {
        let shared = place.join("shared");
        fs::create_dir(&shared).unwrap();
        let mut node = Node::started(place);
        let ends = |at_the_end: &str, spec: &str| {
            let script = format!("trap '{at_the_end}; exit 0' TERM; while :; do sleep 0.1; done");
            let mount = "    volumeMounts: [{name: s, mountPath: /s}]";
            let path = shared.display();
            let volumes = format!("  volumes: [{{name: s, hostPath: {{path: {path}}}}}]{spec}");
            (script, mount, volumes)
        };
        let slow = ends("sleep 1; touch /s/ended", "");
        let critical = "\n  priorityClassName: system-cluster-critical";
        let last = ends("test -e /s/ended && touch /s/after", critical);
        for (name, (script, mount, spec)) in [("a-last", &last), ("b-slow", &slow)] {
            node.manifest(&format!("{name}.yaml"), &pod(name, script, mount, spec));
            node.up(name);
        }
        assert_eq!(node.terminate(), Some(0), "{}", node.log());
        assert!(shared.join("after").exists(), "{}", node.log());
        node.finish();
    });
}

#[test]
fn a_node_of_another_name_ends_what_ran_under_the_old_one() {
    isolated(|place| {
        let mut node = Node::started(place);
        node.manifest("a.yaml", &pod("p", FOREVER, "", ""));
        node.up("p");
        node.kill();
        // Another source says nothing: those of manifests do not wait for it.
        let silent = "--manifest-url=http://127.0.0.1:1/";
        node.flags = ["--hostname-override=m", silent].map(str::to_owned).into();
        node.start();
        eventually("no pod but that of the new name", || {
            let pods = node.list("pods");
            let one = matches!(&pods[..], [one] if one["metadata"]["name"] == "p-m"
                && one["status"]["phase"] == "Running");
            one && fs::read_dir(node.run.join("pods")).unwrap().count() == 1
        });
        node.finish();
    });
}

#[test]
fn pods_of_the_api_come_back_with_the_name_of_their_node_as_they_were() {
    isolated(|place| {
        let mut node = Node::started(place);
        let once = "  nodeName: 'n'\n  restartPolicy: Never";
        let job = pod("job-n", "echo once", "", once);
        let data = "  nodeName: 'n'\n  volumes: [{name: v, emptyDir: {}}]";
        let mount = "    volumeMounts: [{name: v, mountPath: /v}]";
        let web = pod("web-n", FOREVER, mount, data);
        let file = place.join("pods.yaml");
        fs::write(&file, format!("{job}---\n{web}")).unwrap();
        node.ok(&["apply", "-f", file.to_str().unwrap()]);
        let over = |pod: &serde_json::Value| pod["status"]["phase"] == "Succeeded";
        let job = node.pod_until("job", "succeeded", over);
        let web = uid(&node.up("web"));
        node.sh("web", "echo kept >/v/file");
        node.kill();
        node.flags.push("--hostname-override=m".to_owned());
        node.start();
        let shims = || pids_of(&web).len() + pids_of("echo started").len();
        eventually("what runs under another name stops", || shims() == 0);
        node.terminate();
        node.flags.clear();
        node.start();
        let back = node.pod_until("job", "succeeded", over);
        let state = |pod: &serde_json::Value| container(pod, "c")["state"].clone();
        assert_eq!(state(&back), state(&job));
        node.up("web");
        assert_eq!(node.sh("web", "cat /v/file").trim(), "kept");
        node.finish();
    });
}
