//! Logs, exec, images and flags through the client.

use std::process::{Command, Stdio};

use crate::isolation::{installed, isolated, run};
use crate::support::{FOREVER, LOWTIDE, Node, eventually, pod, restarts};

#[test]
fn logs_follow_across_rotation_without_a_lost_line() {
    isolated(|place| {
        let mut node = Node::new(place).flag("--container-log-max-size=20Ki");
        node.flags.push("--container-log-max-files=20".to_owned());
        node.start();
        let script = "sleep 1; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i of many that make the log turn; done; echo end; exec sleep 1000";
        node.manifest("a.yaml", &pod("loud", script, "", ""));
        node.up("loud");
        let output = place.join("followed");
        let mut follower = node
            .client_command(&["logs", "-f", "loud-n"])
            .stdout(std::fs::File::create(&output).unwrap())
            .spawn()
            .unwrap();
        let text = || std::fs::read_to_string(&output).unwrap();
        eventually("the end arrives", || text().ends_with("end\n"));
        let numbers: Vec<u32> = text()
            .lines()
            .filter_map(|line| line.split(' ').nth(1)?.parse().ok())
            .collect();
        assert_eq!(numbers.len(), 3000);
        assert!(numbers.iter().zip(1..).all(|(have, want)| *have == want));
        let rotated = run(
            "find",
            &[&node.logs.display().to_string(), "-name", "0.log*"],
        );
        assert!((5..=20).contains(&rotated.lines().count()), "{rotated}");
        assert_eq!(node.ok(&["logs", "--tail=1", "loud-n"]), "end\n");
        assert_eq!(node.ok(&["logs", "--tail=2", "loud-n"]).lines().count(), 2);
        follower.kill().unwrap();
        follower.wait().unwrap();
        node.finish();
    });
}

#[test]
fn logs_previous_and_since_choose() {
    isolated(|place| {
        let node = Node::started(place);
        let script = "echo boot $$; [ -e /v/again ] || { touch /v/again; echo first; exit 1; }; echo second; exec sleep 1000";
        let mount = "    volumeMounts: [{name: v, mountPath: /v}]";
        node.manifest(
            "a.yaml",
            &pod("p", script, mount, "  volumes: [{name: v, emptyDir: {}}]"),
        );
        node.pod_until("p", "restarted", |pod| restarts(pod, "c") == 1);
        node.said("p", "second");
        assert!(node.ok(&["logs", "--previous", "p-n"]).contains("first"));
        assert!(node.ok(&["logs", "--since=1h", "p-n"]).contains("second"));
        let stamped = node.ok(&["logs", "--timestamps", "p-n"]);
        assert!(stamped.starts_with("20"), "{stamped}");
        node.finish();
    });
}

#[test]
fn exec_gives_output_codes_and_a_terminal() {
    isolated(|place| {
        let node = Node::started(place);
        node.manifest("a.yaml", &pod("p", FOREVER, "", ""));
        node.up("p");
        let output = node.client(&[
            "exec",
            "p-n",
            "--",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 42",
        ]);
        assert_eq!(output.status.code(), Some(42));
        assert_eq!(output.stdout, b"out\n");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("err\n"));

        let mut piped = node
            .client_command(&["exec", "-i", "p-n", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let big = vec![b'x'; 1 << 20];
        let mut input = piped.stdin.take().unwrap();
        let sent = big.clone();
        std::thread::spawn(move || std::io::Write::write_all(&mut input, &sent));
        assert_eq!(piped.wait_with_output().unwrap().stdout, big);

        if !installed("script") {
            return node.finish();
        }
        let run_dir = node.run.display();
        let line = format!(
            "stty rows 33 cols 77; {LOWTIDE} exec --run-dir {run_dir} -it p-n -- sh -c \
             'until stty size | grep \"33 77\"; do sleep 1; done; exit 5'"
        );
        let output = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(5), "{text}");
        assert!(text.contains("33 77"), "{text}");
        node.finish();
    });
}

#[test]
fn wrong_flags_are_one_line_and_code_two() {
    for flags in [
        &["run", "--no-such-flag"][..],
        &["run", "--max-pods=many"],
        &["run", "--pod-cidr=10.88.0.0"],
        &["run", "--bootstrap-kubeconfig=/tmp/x"],
        &["run", "--container-log-max-files=1"],
        &["get", "unicorns"],
    ] {
        let output = Command::new(LOWTIDE).args(flags).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {text}");
        assert_eq!(text.trim_end().lines().count(), 1, "{flags:?}: {text}");
    }
}

// One story of one registry, told in order.
#[allow(clippy::too_many_lines)]
#[test]
fn images_are_pulled_imported_and_used_when_the_registry_is_gone() {
    isolated(|place| {
        if !installed("docker-registry") || !installed("skopeo") {
            return println!("skipped: docker-registry or skopeo is not installed");
        }
        let config = place.join("registry.yml");
        let storage = place.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:5000'}}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let registry = || {
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            eventually("the registry listens", || {
                std::net::TcpStream::connect("127.0.0.1:5000").is_ok()
            });
            child
        };
        let mut serving = registry();
        let mut node = Node::new(place);
        let archive = node.images.join("busybox.tar");
        let name = "127.0.0.1:5000/team/busybox:1";
        run(
            "skopeo",
            &[
                "copy",
                "-q",
                "--insecure-policy",
                "--dest-tls-verify=false",
                &format!("docker-archive:{}", archive.display()),
                &format!("docker://{name}"),
            ],
        );
        let aside = place.join("aside.tar");
        std::fs::rename(&archive, &aside).unwrap();
        let plain = place.join("registries.yaml");
        std::fs::write(
            &plain,
            "mirrors:\n  127.0.0.1:5000: {endpoint: ['http://127.0.0.1:5000']}\n",
        )
        .unwrap();
        node.flags
            .push(format!("--registry-config={}", plain.display()));
        node.start();
        let always = "    imagePullPolicy: Always";
        let text = pod("pulled", FOREVER, always, "").replace(crate::support::IMAGE, name);
        node.manifest("a.yaml", &text);
        node.up("pulled");
        node.event(
            "pulled",
            &format!("Normal Pulled Successfully pulled image \"{name}\""),
        );
        serving.kill().unwrap();
        serving.wait().unwrap();
        let text = pod("cached", FOREVER, always, "").replace(crate::support::IMAGE, name);
        node.manifest("b.yaml", &text);
        node.up("cached");
        node.event("cached", "UsingCachedImage");

        let text =
            pod("missing", FOREVER, "", "").replace(crate::support::IMAGE, "127.0.0.1:5000/none:1");
        node.manifest("c.yaml", &text);
        node.event("missing", "Warning Failed Failed to pull image");
        assert!(
            !node
                .client(&["pull", "127.0.0.1:5000/none:1"])
                .status
                .success()
        );
        assert!(!node.ok(&["images"]).contains("localhost/busybox"));
        node.ok(&["import", &aside.display().to_string()]);
        assert!(node.ok(&["images"]).contains("localhost/busybox"));
        let mut serving = registry();
        node.ok(&["pull", name]);
        serving.kill().unwrap();
        serving.wait().unwrap();
        node.finish();
    });
}

#[test]
fn an_image_imported_while_its_registry_says_nothing_is_used_at_once() {
    isolated(|place| {
        if !installed("skopeo") {
            return println!("skipped: skopeo is not installed");
        }
        let mut node = Node::new(place);
        let name = "127.0.0.1:5001/late:1";
        let from = format!("docker-archive:{}/busybox.tar", node.images.display());
        let late = place.join("late.tar");
        let to = format!("docker-archive:{}:{name}", late.display());
        run("skopeo", &["copy", "-q", "--insecure-policy", &from, &to]);
        node.start();
        // Takes connections and never answers.
        let mute = std::net::TcpListener::bind("127.0.0.1:5001").unwrap();
        let text = pod("late", FOREVER, "", "").replace(crate::support::IMAGE, name);
        node.manifest("a.yaml", &text);
        node.event("late", "Normal Pulling");
        node.ok(&["import", &late.display().to_string()]);
        drop(mute);
        node.up("late");
        node.event("late", "already present on machine");
        let failures = node.events("late");
        let failures: Vec<&String> = failures.iter().filter(|e| e.contains("Failed")).collect();
        assert!(failures.is_empty(), "{failures:#?}");
        node.finish();
    });
}
