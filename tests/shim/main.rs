//! The shim on real runc: exits, signals, OOM, logs, execs, and what survives whose death.

mod attach;
mod pod;

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use lowtide::os::terminal::{self, Size};
use lowtide::runtime::logs::{LogWriter, Stream};
use lowtide::runtime::shim::client::{self, ShimError};
use lowtide::runtime::shim::executable;
use lowtide::runtime::shim::record::{ExitCause, ExitRecord};
use lowtide::runtime::shim::wire::{ExecEnd, Failure, ListedState, Stdin, Terminal};
use lowtide::world::ExecOutcome;
use pod::{command_lives, identity, with_pod};
use serde_json::json;

#[test]
fn exit_codes_and_signals_are_recorded_and_announced() {
    with_pod(async |pod| {
        let (client, changes) = pod.connect().await;
        for (name, script, code, signal) in [
            ("ok.0", "echo out; echo err >&2", 0, None),
            ("seven.0", "exit 7", 7, None),
            ("killed.0", "kill -9 $$; sleep 9", 137, Some(9)),
        ] {
            // As PID 1 of its own namespace a process cannot kill itself: the host's then.
            let request = pod.bundle(name, script, |config| {
                config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc"}]);
            });
            client.run(request).await.expect("runs");
            let exit = pod.exit(name).await;
            assert_eq!((exit.code, exit.signal), (code, signal), "{name}");
            assert_eq!(exit.cause, ExitCause::Seen);
            assert!(!exit.oom_killed);
        }
        changes.recv().await.expect("a wake-up");
        assert_eq!(pod.lines("ok.0").len(), 2);
        let log = fs::read_to_string(pod.log("ok.0")).expect("log");
        assert!(
            log.contains(" stdout F out\n") && log.contains(" stderr F err\n"),
            "{log}"
        );
    });
}

#[test]
fn a_stop_signal_reaches_the_init_and_a_second_run_is_refused() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let script = "trap 'echo bye; exit 3' TERM; echo up; while true; do sleep 0.05; done";
        let request = pod.bundle("app.0", script, |_| {});
        let started = client.run(request.clone()).await.expect("runs");
        assert!(started.process.is_alive());
        pod.until("the trap", || {
            pod.lines("app.0").contains(&"up".into()).then_some(())
        })
        .await;
        let again = client.run(request.clone()).await;
        assert!(matches!(again, Err(ShimError::Refused(Failure::Busy(_)))));
        client.signal("app.0", 15).await.expect("signal");
        assert_eq!(pod.exit("app.0").await.code, 3);
        assert_eq!(pod.lines("app.0"), ["up", "bye"]);
        let late = client.signal("app.0", 15).await;
        assert!(matches!(
            late,
            Err(ShimError::Refused(Failure::NotFound(_)))
        ));
        let again = client.run(request).await;
        assert!(matches!(again, Err(ShimError::Refused(Failure::Busy(_)))));
    });
}

#[test]
fn out_of_memory_is_told_from_other_kills() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let request = pod.bundle("hog.0", "tail /dev/zero", |config| {
            let limit = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
            config["linux"]["resources"] = limit;
        });
        if client.run(request).await.is_err() {
            eprintln!("skipped: no memory limits here");
            return;
        }
        let exit = pod.exit("hog.0").await;
        assert!(exit.oom_killed, "{exit:?}");
        assert_ne!(exit.code, 0);
    });
}

#[test]
fn a_command_that_cannot_start_says_so_with_the_code_of_a_shell() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        for (name, command, expected) in [
            ("missing.0", "/bin/nope", 127),
            ("denied.0", "/bin/text", 126),
        ] {
            let request = pod.bundle(name, "", |config| {
                config["process"]["args"] = json!([command]);
            });
            let error = client.run(request).await.expect_err("cannot run");
            let ShimError::Refused(Failure::Start { code, message }) = &error else {
                panic!("{error:?}");
            };
            assert_eq!(*code, expected, "{message}");
            let exit = pod.exit(name).await;
            assert_eq!(exit.code, expected);
            assert!(matches!(exit.cause, ExitCause::NeverStarted(_)));
            // The runtime's complaint is no output of the container.
            assert!(pod.lines(name).is_empty());
        }
        assert!(client.list().await.expect("list").containers.is_empty());
    });
}

#[test]
fn a_fast_writer_loses_no_line_across_rotations() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let mut request = pod.bundle("loud.0", "seq 1 50000; printf tail", |_| {});
        let log = request.log.as_mut().expect("a log");
        (log.bytes_max, log.files_max) = (100_000, 1000);
        client.run(request).await.expect("runs");
        assert_eq!(pod.exit("loud.0").await.code, 0);
        let mut expected: Vec<String> = (1..=50_000).map(|n| n.to_string()).collect();
        expected.push("tail".into());
        assert_eq!(pod.lines("loud.0"), expected);
        let files = fs::read_dir(pod.log("loud.0").parent().expect("parent")).expect("list");
        assert!(files.count() > 10);
    });
}

#[test]
fn containers_survive_the_agent_and_the_shim_and_are_adopted() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let script = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.01; done";
        client
            .run(pod.bundle("app.0", script, |_| {}))
            .await
            .expect("runs");
        let pause = client.start_pause(pod.pause_config()).await.expect("pause");
        let running = client.list().await.expect("list");
        // Agents come and go.
        for _ in 0..3 {
            let (other, _) = pod.connect().await;
            assert_eq!(other.shim(), client.shim());
            assert_eq!(other.list().await.expect("list"), running);
        }
        // So do shims.
        for _ in 0..3 {
            let (before, _) = pod.connect().await;
            pod.kill_shim(&before).await;
            let (after, _) = pod.connect().await;
            assert_ne!(after.shim(), before.shim());
            let listed = after.list().await.expect("list");
            assert_eq!(listed, running);
            assert!(pause.process.is_alive());
            let count = pod.lines("app.0").len();
            pod.until("more lines", || {
                (pod.lines("app.0").len() > count).then_some(())
            })
            .await;
        }
        let (last, _) = pod.connect().await;
        last.signal("app.0", 9).await.expect("signal");
        let exit = pod.exit("app.0").await;
        assert_eq!(exit.code, 137);
        last.stop_pause().await.expect("stop");
        pod.until("pause's end", || (!pause.process.is_alive()).then_some(()))
            .await;
    });
}

#[test]
fn an_exit_that_no_shim_saw_is_unknown() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let started = client
            .run(pod.bundle("app.0", "sleep 1000", |_| {}))
            .await
            .expect("runs");
        pod.kill_shim(&client).await;
        started
            .process
            .open()
            .expect("alive")
            .signal(9)
            .expect("signal");
        pod.until("its end", || (!started.process.is_alive()).then_some(()))
            .await;
        let (_client, _changes) = pod.connect().await;
        let ExitRecord { code, cause, .. } = pod.exit("app.0").await;
        assert_eq!((code, cause), (137, ExitCause::Unknown));
    });
}

#[test]
fn a_shim_killed_while_the_runtime_works_leaves_one_container_or_none() {
    with_pod(async |pod| {
        for round in 0..8u64 {
            let (client, _changes) = pod.connect().await;
            let name = format!("app.{round}");
            let request = pod.bundle(&name, "sleep 1000", |_| {});
            let killer = async {
                pod.pass(Duration::from_millis(round * 6)).await;
                pod.kill_shim(&client).await;
            };
            let (outcome, ()) = futures_lite::future::zip(client.run(request), killer).await;
            let (client, _changes) = pod.connect().await;
            let directory = pod.directory.container(&name).expect("a name");
            // Either it runs and is listed, or it has an exit, or it never got that far.
            let settled = async {
                loop {
                    let listed = client.list().await.expect("list").containers;
                    let state = listed
                        .into_iter()
                        .find(|l| l.container == name)
                        .map(|l| l.state);
                    match state {
                        Some(ListedState::Starting) => pod.pass(Duration::from_millis(5)).await,
                        Some(ListedState::Running(started)) => break Some(started),
                        None => break None,
                    }
                }
            };
            match settled.await {
                Some(started) => {
                    assert!(started.process.is_alive());
                    client.signal(&name, 9).await.expect("signal");
                    pod.exit(&name).await;
                }
                None => {
                    let recorded = directory.file("shim.json").exists();
                    let ended = directory.exit().expect("readable").is_some();
                    assert_eq!(recorded, ended, "round {round}: {outcome:?}");
                }
            }
        }
    });
}

#[test]
fn a_container_whose_agent_dies_while_it_starts_is_started_all_the_same() {
    with_pod(async |pod| {
        let (keeps_the_shim, _changes) = pod.connect().await;
        for round in 0..8u64 {
            let name = format!("app.{round}");
            let request = pod.bundle(&name, "exit 6", |_| {});
            let connection = client::connect(&pod.directory, pod.clock.clone()).await;
            let mut connection = connection.expect("connects");
            // Dropped with everything it had under way, as a killed agent's socket is.
            let asking = async { drop(connection.client.run(request).await) };
            let driving = async { (&mut connection.driver).await };
            let dying = pod.pass(Duration::from_millis(1 + round * 5));
            futures_lite::future::or(futures_lite::future::or(asking, dying), driving).await;
            drop(connection);
            assert_eq!(pod.exit(&name).await.code, 6);
        }
        assert!(
            keeps_the_shim
                .list()
                .await
                .expect("list")
                .containers
                .is_empty()
        );
    });
}

#[test]
fn a_command_in_a_container_returns_its_code_and_the_head_of_its_output() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        client
            .run(pod.bundle("app.0", "sleep 1000", |_| {}))
            .await
            .expect("runs");
        let run = |args: &[&str]| client.exec_captured(pod.exec("app.0", args, Terminal::No));
        let outcome = run(&["sh", "-c", "echo out; echo err >&2; exit 5"])
            .await
            .expect("runs");
        let output = b"out\nerr\n".to_vec();
        assert_eq!(outcome, ExecOutcome::Exited { code: 5, output });
        let outcome = run(&["sh", "-c", "yes | head -c 1000000"])
            .await
            .expect("runs");
        let ExecOutcome::Exited { code: 0, output } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(output.len(), 10 * 1024);
        let error = run(&["nope"]).await.expect_err("no such command");
        assert!(
            matches!(&error, ShimError::Refused(Failure::Start { code: 127, .. })),
            "{error:?}"
        );
        let error = client
            .exec_captured(pod.exec("other.0", &["true"], Terminal::No))
            .await;
        assert!(matches!(
            error,
            Err(ShimError::Refused(Failure::NotFound(_)))
        ));
        let left: Vec<String> = fs::read_dir(pod.directory.container("app.0").expect("x").path())
            .expect("list")
            .map(|entry| {
                entry
                    .expect("entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| name.starts_with("exec-"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_command_over_its_time_is_killed_with_all_that_came_of_it() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        client
            .run(pod.bundle("app.0", "sleep 1000", |_| {}))
            .await
            .expect("runs");
        let script = "sleep 4321 & setsid sleep 4321 & sh -c 'sleep 4321; true'; true";
        let mut request = pod.exec("app.0", &["sh", "-c", script], Terminal::No);
        request.timeout_ms = Some(300);
        let outcome = client.exec_captured(request).await.expect("runs");
        assert!(
            matches!(outcome, ExecOutcome::TimedOut { .. }),
            "{outcome:?}"
        );
        pod.until("the descendants' end", || {
            (!command_lives("sleep 4321")).then_some(())
        })
        .await;
        let listed = client.list().await.expect("list");
        assert!(matches!(
            listed.containers[0].state,
            ListedState::Running(_)
        ));
    });
}

#[test]
fn a_command_ends_when_nobody_waits_for_it_any_more() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        client
            .run(pod.bundle("app.0", "sleep 1000", |_| {}))
            .await
            .expect("runs");
        let null = lowtide::os::file::null().expect("/dev/null");
        let stdio = [null.as_fd(), null.as_fd(), null.as_fd()];
        let request = pod.exec("app.0", &["sleep", "8765"], Terminal::No);
        let exec = client.exec(request, stdio).await.expect("runs");
        // The runtime answers just before the command's program replaces its own.
        pod.until("its start", || command_lives("sleep 8765").then_some(()))
            .await;
        drop(exec);
        pod.until("its end", || (!command_lives("sleep 8765")).then_some(()))
            .await;
    });
}

#[test]
fn a_terminal_exec_has_a_size_that_can_change() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        client
            .run(pod.bundle("app.0", "sleep 1000", |_| {}))
            .await
            .expect("runs");
        let script = "stty size; read line; echo got $line; stty size; exit 4";
        let request = pod.exec("app.0", &["sh", "-c", script], Terminal::Yes);
        let null = lowtide::os::file::null().expect("/dev/null");
        let stdio = [null.as_fd(), null.as_fd(), null.as_fd()];
        let mut exec = client.exec(request, stdio).await.expect("runs");
        let master = exec.terminal.take().expect("a terminal");
        let size = Size {
            rows: 33,
            columns: 99,
        };
        terminal::resize(&master, size).expect("resize");
        let mut terminal = fs::File::from(master);
        terminal.write_all(b"hello\n").expect("type");
        assert_eq!(exec.ended().await, ExecEnd::Exited { code: 4 });
        let mut text = String::new();
        // The master ends with EIO once nobody has the terminal open.
        let _end = terminal.read_to_string(&mut text);
        assert!(
            text.contains("got hello") && text.contains("33 99"),
            "{text:?}"
        );
    });
}

#[test]
fn a_container_with_a_terminal_and_an_open_input_logs_what_it_says() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let mut request = pod.bundle("tty.0", "[ -t 1 ] && echo terminal", |config| {
            config["process"]["terminal"] = json!(true);
        });
        request.terminal = Terminal::Yes;
        client.run(request).await.expect("runs");
        assert_eq!(pod.exit("tty.0").await.code, 0);
        // A terminal ends its lines with a carriage return, too.
        let log = fs::read_to_string(pod.log("tty.0")).expect("log");
        assert!(log.ends_with(" stdout F terminal\r\n"), "{log:?}");
        let mut request = pod.bundle("open.0", "read line; echo got $line", |_| {});
        request.stdin = Stdin::Open;
        client.run(request).await.expect("runs");
        let stdin = pod
            .directory
            .container("open.0")
            .expect("a name")
            .file("stdin");
        fs::write(stdin, "a line\n").expect("type");
        assert_eq!(pod.exit("open.0").await.code, 0);
        assert_eq!(pod.lines("open.0"), ["got a line"]);
    });
}

#[test]
fn a_hanging_runtime_is_killed_and_holds_up_nobody() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let fake = pod.home.path().join("hang");
        fs::write(&fake, "#!/bin/sh\nsleep 7654 & wait\n").expect("script");
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("mode");
        let mut request = pod.bundle("hang.0", "true", |_| {});
        request.runtime = vec![fake.to_string_lossy().into_owned()];
        request.deadline_ms = 400;
        let others = async {
            client
                .run(pod.bundle("app.0", "exit 2", |_| {}))
                .await
                .expect("runs");
            pod.exit("app.0").await.code
        };
        let (hung, code) = futures_lite::future::zip(client.run(request), others).await;
        assert!(
            matches!(hung, Err(ShimError::Refused(Failure::Timeout(_)))),
            "{hung:?}"
        );
        assert_eq!(code, 2);
        pod.until("its end", || (!command_lives("sleep 7654")).then_some(()))
            .await;
        assert!(matches!(
            pod.exit("hang.0").await.cause,
            ExitCause::NeverStarted(_)
        ));
    });
}

#[test]
fn pause_holds_the_namespaces_and_nothing_else() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let mut config = pod.pause_config();
        config.pid = lowtide::runtime::shim::wire::Own::Pod;
        let pause = client.start_pause(config).await.expect("pause").process;
        let proc = |name: &str| format!("/proc/{}/{name}", pause.pid);
        let link = |path: String| fs::read_link(path).expect("link");
        for own in ["net", "ipc", "uts", "mnt", "pid"] {
            let host = link(format!("/proc/self/ns/{own}"));
            let what = match own {
                "pid" => "ns/pid_for_children".to_owned(),
                other => format!("ns/{other}"),
            };
            assert_ne!(link(proc(&what)), host, "{own}");
        }
        assert_eq!(fs::read_dir(proc("root/")).expect("root").count(), 0);
        assert!(fs::write(proc("root/x"), "x").is_err());
        assert_eq!(fs::read_dir(proc("fd")).expect("fd").count(), 0);
        let status = fs::read_to_string(proc("status")).expect("status");
        for line in [
            "Uid:\t65535\t65535\t65535\t65535",
            "Gid:\t65535\t65535\t65535\t65535",
            "NoNewPrivs:\t1",
            "CapBnd:\t0000000000000000",
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
        ] {
            assert!(status.contains(line), "{line} in {status}");
        }
        let again = client.start_pause(pod.pause_config()).await;
        assert!(matches!(again, Err(ShimError::Refused(Failure::Busy(_)))));
        client.stop_pause().await.expect("stop");
        assert!(!pause.is_alive());
        let mut wrong = pod.pause_config();
        wrong.sysctls = vec![("net.no.such".into(), "1".into())];
        let error = client.start_pause(wrong).await.expect_err("no such sysctl");
        assert!(error.to_string().contains("net.no.such"), "{error}");
    });
}

#[test]
fn a_second_shim_of_a_pod_ends_and_the_first_one_is_used() {
    with_pod(async |pod| {
        let (one, _) = pod.connect().await;
        // Without its socket the agent takes the shim for dead and starts another.
        let shim = identity(one.shim().expect("greeted").pid);
        let socket = pod.directory.socket();
        let hidden = socket.with_file_name("hidden.sock");
        fs::rename(&socket, &hidden).expect("hide");
        let back = async {
            pod.pass(Duration::from_millis(300)).await;
            fs::rename(&hidden, &socket).expect("show");
        };
        let ((other, _), ()) = futures_lite::future::zip(pod.connect(), back).await;
        assert_eq!(other.shim(), Some(shim));
    });
}

#[test]
fn an_idle_shim_whose_directory_is_gone_ends_with_its_last_connection() {
    with_pod(async |pod| {
        let (client, _changes) = pod.connect().await;
        let shim = client.shim().expect("greeted");
        fs::remove_dir_all(pod.directory.path()).expect("remove");
        let connection = pod.connect().await;
        assert_ne!(connection.0.shim(), Some(shim));
        client.list().await.expect("still there");
        client.hang_up();
        pod.until("its end", || (!shim.is_alive()).then_some(()))
            .await;
        // The one that came after it has kept its socket.
        connection.0.list().await.expect("list");
        pod.connect().await.0.list().await.expect("list");
    });
}

#[test]
fn the_program_of_shims_is_a_read_only_view_that_goes_when_unused() {
    if lowtide::os::process::effective_uid() != 0 {
        eprintln!("skipped: not root");
        return;
    }
    let home = tempfile::tempdir().expect("temporary directory");
    let old = home.path().join("bin/lowtide-0-0");
    fs::create_dir(home.path().join("bin")).expect("directory");
    fs::write(&old, "left over").expect("file");
    let made = executable::prepare(home.path()).expect("own program");
    if let Some(warning) = made.warning {
        eprintln!("skipped: {warning}");
        return;
    }
    assert!(!old.exists());
    // Opening it for writing fails anyhow while it runs; changing its mode does not.
    let mode = fs::Permissions::from_mode(0o755);
    let error = fs::set_permissions(&made.path, mode).expect_err("read-only");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(executable::prepare(home.path()).expect("again"), made);
    lowtide::os::mount::unmount(&made.path).expect("unmount");
}

#[test]
fn a_full_disk_costs_lines_but_tears_none_and_is_told_once() {
    use lowtide::os::mount::{self, Flags, Spread};
    use lowtide::os::privilege::{self, Namespace};
    let home = tempfile::tempdir().expect("temporary directory");
    // Of this thread only: unshare(CLONE_NEWNS) concerns the caller.
    let private = privilege::unshare(Namespace::Mount)
        .and_then(|()| mount::set_propagation(std::path::Path::new("/"), Spread::Private))
        .and_then(|()| mount::mount("x", home.path(), "tmpfs", Flags::empty(), c"size=64k"));
    if let Err(error) = private {
        eprintln!("skipped: no mount namespace of our own: {error}");
        return;
    }
    let ballast = home.path().join("ballast");
    fs::write(&ballast, vec![0; 40 * 1024]).expect("ballast");
    let path = home.path().join("0.log");
    let mut log = LogWriter::new(&path, 1 << 20, 5);
    let line = format!("{}\n", "x".repeat(99));
    for _ in 0..500 {
        log.write(
            Stream::Stdout,
            line.as_bytes(),
            lowtide::os::clock::wall_time(),
        );
    }
    let dropped = log.dropped_lines();
    assert!(dropped > 0);
    fs::remove_file(&ballast).expect("space again");
    log.write(Stream::Stdout, b"after\n", lowtide::os::clock::wall_time());
    let text = fs::read_to_string(&path).expect("log");
    assert!(text.ends_with('\n'));
    let texts: Vec<&str> = text.lines().map(|line| &line[40..]).collect();
    let (whole, rest) = texts.split_at(texts.len() - 2);
    assert!(whole.iter().all(|text| *text == "x".repeat(99)));
    assert_eq!(whole.len() as u64 + dropped, 500);
    assert!(
        rest[0].starts_with(&format!("lowtide: {dropped} lines")),
        "{rest:?}"
    );
    assert_eq!(rest[1], "after");
    mount::unmount_lazily(home.path()).expect("unmount");
}
