//! Whole pods: sandboxes and containers through shims and runc.

use std::fs;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use lowtide::world::{
    ContainerState, ExecOutcome, ExecRequest, Runtime, RuntimeError, SandboxState, Uid,
};

use crate::node::{LOG_LIMITS, Node, container, pod};
use crate::support::{eventually, isolated, run};

fn node() -> Node {
    Node::new("0123abcd", "10.88.0.0/24")
}

fn ready(node: &Node, uid: &Uid) -> bool {
    let sandbox = node.observe(uid).sandbox;
    sandbox.is_some_and(|sandbox| sandbox.state == SandboxState::Ready)
}

#[test]
fn a_sandbox_comes_up_and_leaves_nothing() {
    isolated("pods::a_sandbox_comes_up_and_leaves_nothing", || {
        let node = node();
        let before = node.traces();
        let config = pod("one");
        node.start_pod(&config);
        let sandbox = node.observe(&config.uid).sandbox.expect("observed");
        assert_eq!(sandbox.state, SandboxState::Ready);
        assert_eq!(
            sandbox.ips,
            ["10.88.0.2".parse::<std::net::IpAddr>().unwrap()]
        );
        let hosts = fs::read_to_string(node.layout().etc_hosts(&config.uid)).expect("hosts");
        assert!(hosts.ends_with("10.88.0.2\tone\n"), "{hosts}");
        assert_ne!(node.traces(), before);
        node.start_pod(&config);
        node.remove(&config.uid);
        assert_eq!(node.traces(), before);
        node.remove(&config.uid);
    });
}

#[test]
fn a_container_runs_with_its_environment_and_its_exit_is_reported() {
    isolated(
        "pods::a_container_runs_with_its_environment_and_its_exit_is_reported",
        || {
            let node = node();
            let before = node.traces();
            let config = pod("one");
            node.start_pod(&config);
            let script =
                "echo $GREETING; cat /etc/hostname; echo bye > /dev/termination-log; exit 7";
            let mut main = container(&config, "main", script);
            main.env.push(("GREETING".into(), "hello".into()));
            let id = node.start(&main);
            let exit = node.exit(&config.uid, &id);
            assert_eq!((exit.code, exit.reason.as_str()), (7, "Error"));
            assert_eq!(exit.message, "bye\n");
            let log = node.layout().logs.join("default_one_one/main/0.log");
            eventually("the log", || {
                let text = fs::read_to_string(&log).unwrap_or_default();
                text.contains("stdout F hello") && text.contains("stdout F one")
            });
            let mut missing = container(&config, "missing", "");
            missing.command = vec!["/no/such/program".into()];
            let missing = Arc::new(missing);
            let failed = node.wait(async |runtime| runtime.start_container(missing).await);
            assert!(
                matches!(failed, Err(RuntimeError::Start { .. })),
                "{failed:?}"
            );
            node.remove(&config.uid);
            assert_eq!(node.traces(), before);
        },
    );
}

#[test]
fn a_container_that_needs_too_much_memory_is_oom_killed() {
    isolated(
        "pods::a_container_that_needs_too_much_memory_is_oom_killed",
        || {
            let node = node();
            let config = pod("one");
            node.start_pod(&config);
            let mut main = container(&config, "main", "exec tail /dev/zero");
            main.resources.memory_bytes_max = Some(16 << 20);
            let id = node.start(&main);
            let exit = node.exit(&config.uid, &id);
            assert_eq!((exit.code, exit.reason.as_str()), (137, "OOMKilled"));
        },
    );
}

#[test]
fn commands_run_in_the_container_and_their_time_is_limited() {
    isolated(
        "pods::commands_run_in_the_container_and_their_time_is_limited",
        || {
            let node = node();
            let config = pod("one");
            node.start_pod(&config);
            let mut main = container(&config, "main", "exec sleep 600");
            main.env.push(("GREETING".into(), "hello".into()));
            let id = node.start(&main);
            let exec = |script: &str, timeout: Option<u64>| {
                let request = ExecRequest {
                    uid: config.uid.clone(),
                    container: id.clone(),
                    command: vec!["/bin/sh".into(), "-c".into(), script.into()],
                    timeout: timeout.map(Duration::from_millis),
                };
                node.wait(async |runtime| runtime.exec(request).await)
                    .expect("exec")
            };
            assert_eq!(
                exec("echo $GREETING; exit 3", None),
                ExecOutcome::Exited {
                    code: 3,
                    output: b"hello\n".to_vec()
                }
            );
            assert!(matches!(
                exec("sleep 60", Some(100)),
                ExecOutcome::TimedOut { .. }
            ));
            node.wait(async |runtime| runtime.kill_container(&config.uid, &id).await)
                .expect("killed");
            assert_eq!(node.exit(&config.uid, &id).code, 137);
            node.wait(async |runtime| runtime.remove_container(&config.uid, &id).await)
                .expect("removed");
            assert_eq!(node.observe(&config.uid).containers, []);
        },
    );
}

#[test]
fn a_new_agent_adopts_what_runs_and_restarts_nothing() {
    isolated(
        "pods::a_new_agent_adopts_what_runs_and_restarts_nothing",
        || {
            let node = node();
            let config = pod("one");
            node.start_pod(&config);
            let running = node.start(&container(&config, "main", "exec sleep 600"));
            let ending = node.start(&container(&config, "short", "sleep 1; exit 5"));
            let before = node.observe(&config.uid);
            node.start_agent();
            let found = node
                .wait(async |runtime| runtime.recover().await)
                .expect("recovered");
            assert_eq!(found, std::slice::from_ref(&config.uid));
            let after = node.observe(&config.uid);
            assert_eq!(after.sandbox, before.sandbox);
            let main = |pod: &lowtide::world::PodObserved| {
                pod.containers.iter().find(|c| c.id == running).cloned()
            };
            assert_eq!(main(&after), main(&before));
            assert_eq!(node.exit(&config.uid, &ending).code, 5);
            node.wait(async |runtime| runtime.stop_container(&config.uid, &running).await)
                .expect("signalled");
            node.wait(async |runtime| runtime.kill_container(&config.uid, &running).await)
                .expect("killed");
            assert_eq!(node.exit(&config.uid, &running).code, 137);
        },
    );
}

#[test]
fn a_killed_pause_makes_the_sandbox_dead_and_the_next_attempt_replaces_it() {
    isolated(
        "pods::a_killed_pause_makes_the_sandbox_dead_and_the_next_attempt_replaces_it",
        || {
            let node = node();
            let mut config = pod("one");
            node.start_pod(&config);
            let record =
                fs::read_to_string(node.layout().sandbox_record(&config.uid)).expect("record");
            let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
            let pause = record["phase"]["Ready"]["pause"]["pid"].to_string();
            run("kill", &["-9", &pause]);
            node.until(&config.uid, "a dead sandbox", |pod| {
                let state = pod.sandbox.as_ref().map(|sandbox| &sandbox.state);
                matches!(state, Some(SandboxState::Dead(_)))
            });
            config.attempt = 1;
            node.start_pod(&config);
            assert!(ready(&node, &config.uid));
            let id = node.start(&container(&config, "main", "exit 0"));
            assert_eq!(node.exit(&config.uid, &id).reason, "Completed");
        },
    );
}

#[test]
fn a_killed_shim_is_replaced_and_containers_live_on() {
    isolated(
        "pods::a_killed_shim_is_replaced_and_containers_live_on",
        || {
            let node = node();
            let config = pod("one");
            node.start_pod(&config);
            let id = node.start(&container(&config, "main", "exec sleep 600"));
            let shim = node.layout().pod_run(&config.uid).join("shim.pid");
            let pid = fs::read_to_string(&shim).expect("shim.pid");
            let number = pid.split(' ').next().expect("a pid");
            run("kill", &["-9", number]);
            eventually("another shim", || {
                node.rest();
                fs::read_to_string(&shim).is_ok_and(|next| next != pid)
            });
            let pod = node.observe(&config.uid);
            assert!(matches!(
                pod.containers[0].state,
                ContainerState::Running { .. }
            ));
            node.wait(async |runtime| runtime.kill_container(&config.uid, &id).await)
                .expect("killed");
            assert_ne!(node.exit(&config.uid, &id).code, 0);
        },
    );
}

#[test]
fn an_end_that_could_not_be_recorded_is_recorded_later() {
    isolated(
        "pods::an_end_that_could_not_be_recorded_is_recorded_later",
        || {
            let node = node();
            let config = pod("one");
            node.start_pod(&config);
            let id = node.start(&container(&config, "main", "exec sleep 600"));
            let containers = node.layout().pod_run(&config.uid).join("containers");
            // In the place of what is renamed: as on a full disk, nothing can be written.
            let full = containers.join("main.0/container.next");
            fs::create_dir(&full).expect("mkdir");
            node.wait(async |runtime| runtime.kill_container(&config.uid, &id).await)
                .expect("killed");
            eventually("its end", || {
                node.rest();
                containers.join("main.0/exit.json").exists()
            });
            node.rest();
            let state = &node.observe(&config.uid).containers[0].state;
            assert!(matches!(state, ContainerState::Running { .. }), "{state:?}");
            fs::remove_dir(&full).expect("rmdir");
            assert_eq!(node.exit(&config.uid, &id).code, 137);
        },
    );
}

#[test]
fn a_crash_at_any_step_leaves_nothing_that_the_next_agent_does_not_clear() {
    isolated(
        "pods::a_crash_at_any_step_leaves_nothing_that_the_next_agent_does_not_clear",
        || {
            let node = node();
            let before = node.traces();
            let config = pod("one");
            let main = container(&config, "main", "exec sleep 600");
            for polls in 1..200 {
                let (sandbox, main) = (Arc::new(config.clone()), Arc::new(main.clone()));
                let finished = node.crash_after(polls, async |runtime| {
                    runtime.start_sandbox(sandbox).await.expect("sandbox");
                    runtime.start_container(main).await.expect("container");
                    runtime.remove_pod(&config.uid).await.expect("removed");
                });
                node.start_agent();
                let left = node
                    .wait(async |runtime| runtime.recover().await)
                    .expect("recovered");
                for uid in &left {
                    // What was adopted works: it can be finished and taken away.
                    node.start_pod(&config);
                    node.start(&container(&config, "main", "exec sleep 600"));
                    node.remove(uid);
                }
                assert_eq!(node.traces(), before, "crash after {polls} polls");
                if finished {
                    eprintln!("crashed at each of {polls} points");
                    eprintln!("crashed at each of {polls} points");
                    return;
                }
            }
            panic!("it never came to its end");
        },
    );
}

/// Prints the ratio that the budget is about; a shared machine is no place to assert it.
#[test]
#[allow(clippy::disallowed_methods)]
fn what_a_pod_costs_beside_bare_runc_is_printed() {
    isolated("pods::what_a_pod_costs_beside_bare_runc_is_printed", || {
        const ROUNDS: u32 = 10;
        let node = node();
        let mut whole = Vec::new();
        let mut bare = Vec::new();
        for round in 0..ROUNDS {
            let config = pod(&format!("pod-{round}"));
            let main = container(&config, "main", "exec sleep 600");
            let start = std::time::Instant::now();
            node.start_pod(&config);
            let id = node.start(&main);
            whole.push(start.elapsed());
            let bundle = node.layout().containers(&config.uid).join("main.0");
            node.wait(async |runtime| runtime.kill_container(&config.uid, &id).await)
                .expect("killed");
            node.exit(&config.uid, &id);
            eventually("a cleared instance", || {
                node.rest();
                !node.layout().runtime_state().join(id.to_string()).exists()
            });
            bare.push(bare_run(&node, &bundle));
            node.remove(&config.uid);
        }
        whole.sort();
        bare.sort();
        let middle = ROUNDS as usize / 2;
        let (whole, bare) = (whole[middle], bare[middle]);
        let budget = 1.25 * (bare.as_secs_f64() + 0.006);
        println!(
            "sandbox and container {whole:?}, bare runc run {bare:?}, of the budget: {:.2}",
            whole.as_secs_f64() / budget
        );
    });
}

/// Time of `runc run --detach` of the same bundle without what ties it to the pod.
#[allow(clippy::disallowed_methods)]
fn bare_run(node: &Node, bundle: &std::path::Path) -> Duration {
    let text = fs::read(bundle.join("config.json")).expect("bundle");
    let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    config["root"]["path"] = node.directory.path().join("image").to_string_lossy().into();
    config["mounts"] = serde_json::json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
    ]);
    config["linux"]["namespaces"] =
        serde_json::json!([{ "type": "pid" }, { "type": "mount" }, { "type": "network" }]);
    config["linux"]["cgroupsPath"] = format!("{}/bare", node.cgroup_root).into();
    let other = node.directory.path().join("bare");
    fs::create_dir_all(&other).expect("bundle");
    fs::write(other.join("config.json"), config.to_string()).expect("bundle");
    let (bundle, pid) = (other.to_string_lossy(), other.join("pid"));
    let state = other.join("state").to_string_lossy().into_owned();
    let pid_file = pid.to_string_lossy();
    let start = std::time::Instant::now();
    // Its output is not captured: the container would hold the pipe open.
    let status = crate::support::program("runc")
        .args(["--root", &state, "run", "--detach", "--bundle", &bundle])
        .args(["--pid-file", &pid_file, "bare"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status();
    let time = start.elapsed();
    assert!(status.expect("runc").success());
    run("runc", &["--root", &state, "delete", "--force", "bare"]);
    time
}

#[test]
fn rotated_logs_are_compressed_but_the_newest() {
    isolated("pods::rotated_logs_are_compressed_but_the_newest", || {
        let node = node();
        let config = pod("one");
        node.start_pod(&config);
        let script =
            "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exec sleep 600";
        node.start(&container(&config, "main", script));
        let log = node.layout().logs.join("default_one_one/main/0.log");
        eventually("the last line", || {
            node.rest();
            fs::read_to_string(&log).is_ok_and(|text| text.ends_with("line 2999\n"))
        });
        let mut names = Vec::new();
        eventually("current, newest rotated, two compressed", || {
            node.rest();
            let directory = log.parent().expect("a directory");
            let entries = fs::read_dir(directory).expect("list").flatten();
            names = entries
                .map(|e| e.file_name().into_string().expect("text"))
                .collect();
            names.sort();
            let sorts: Vec<bool> = names.iter().map(|name| name.ends_with(".gz")).collect();
            sorts == [false, true, true, false]
        });
        assert_eq!(names.len(), LOG_LIMITS.files_max as usize);
        let mut number = None;
        for name in names[1..].iter().chain([&names[0]]) {
            let bytes = fs::read(log.with_file_name(name)).expect("log");
            let mut text = String::new();
            let read = match name.ends_with(".gz") {
                true => flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text),
                false => (&bytes[..]).read_to_string(&mut text),
            };
            read.expect("whole");
            for line in text.lines() {
                let next: u32 = line
                    .rsplit(' ')
                    .next()
                    .expect("a word")
                    .parse()
                    .expect("number");
                assert_eq!(next, number.map_or(next, |last: u32| last + 1), "{name}");
                number = Some(next);
            }
        }
        assert_eq!(number, Some(2999));
    });
}
