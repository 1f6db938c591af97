//! The client as a process of its own: what it prints, how it exits, what it leaves of a terminal.

use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use lowtide::cli::client;
use lowtide::os::terminal;
use serde_json::json;

use crate::node::Node;

/// Set for the child: its arguments, one a line.
const ARGUMENTS: &str = "LOWTIDE_TEST_CLIENT";

/// Not a test: the child's side of [`command`], which runs this very binary.
#[test]
fn as_a_child() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else {
        return;
    };
    let program = clap::Command::new("lowtide").subcommands(client::commands());
    let arguments = ["lowtide"].into_iter().chain(arguments.lines());
    let matches = program.get_matches_from(arguments);
    let (name, matches) = matches.subcommand().expect("a subcommand");
    std::process::exit(i32::from(client::run(name, matches)));
}

#[allow(clippy::disallowed_methods, reason = "a test's own child")]
fn command(node: &Node, arguments: &[&str]) -> Command {
    let run_dir = format!("--run-dir={}", node.directory.path().display());
    let (name, rest) = arguments.split_first().expect("a subcommand");
    let all = [&[*name, run_dir.as_str()][..], rest].concat();
    // Another processor's programs are run by another (tests/arm).
    let runner = std::env::var_os("LOWTIDE_RUNNER").unwrap_or_default();
    let runner = runner.into_string().expect("UTF-8");
    let mut line: Vec<_> = runner.split_ascii_whitespace().map(PathBuf::from).collect();
    line.push(std::env::current_exe().expect("this binary"));
    let mut command = Command::new(&line[0]);
    command
        .args(&line[1..])
        .args(["client::as_a_child", "--exact", "--nocapture"])
        .env(ARGUMENTS, all.join("\n"))
        .stdin(Stdio::null());
    command
}

/// Exit code, stdout without the test harness's first lines, stderr.
fn read(output: Output) -> (i32, String, String) {
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let text = text
        .split_once("running 1 test\n")
        .map_or(text.as_str(), |(_, rest)| rest);
    let error = String::from_utf8(output.stderr).expect("UTF-8");
    (
        output.status.code().expect("exit code"),
        text.to_owned(),
        error,
    )
}

fn run(node: &Node, arguments: &[&str]) -> (i32, String, String) {
    read(command(node, arguments).output().expect("run"))
}

fn start() -> Node {
    let node = Node::start();
    let body = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-pi", "namespace": "default",
            "annotations": {"kubernetes.io/config.source": "file"}},
        "spec": {"nodeName": "pi", "containers": [{"name": "web", "image": "busybox"}]},
    });
    let pod = node.create(lowtide::object::Kind::Pod, "web-pi", body);
    node.status(&pod, json!({"phase": "Running", "podIP": "10.88.0.2", "containerStatuses": [{
        "name": "web", "ready": true, "restartCount": 0, "containerID": format!("lowtide://{}", "a".repeat(64)),
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}));
    let uid = pod["metadata"]["uid"].as_str().expect("uid");
    let directory = node
        .directory
        .path()
        .join(format!("logs/default_web-pi_{uid}/web"));
    fs::create_dir_all(&directory).expect("make log directory");
    fs::write(
        directory.join("0.log"),
        "2026-01-01T00:00:00.0Z stdout F hello\n",
    )
    .expect("write log");
    node
}

#[test]
fn get_prints_as_kubectl_does() {
    let node = start();
    let (code, text, _) = run(&node, &["get", "po"]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "NAME     READY   STATUS    RESTARTS   AGE");
    assert!(
        lines[1].starts_with("web-pi   1/1     Running   0          "),
        "{text}"
    );
    let (_, text, _) = run(&node, &["get", "pods", "-A", "-o", "wide"]);
    assert!(
        text.starts_with("NAMESPACE   NAME     READY   STATUS    RESTARTS   AGE"),
        "{text}"
    );
    assert!(
        text.contains("10.88.0.2   pi     <none>           <none>"),
        "{text}"
    );
    assert_eq!(
        run(&node, &["get", "pod", "web", "-o", "name"]).1,
        "pod/web-pi\n"
    );
    let (_, yaml, _) = run(&node, &["get", "pod/web", "-o", "yaml"]);
    assert!(yaml.starts_with("apiVersion: v1\nkind: Pod\n"), "{yaml}");
    let (code, text, error) = run(&node, &["get", "cm"]);
    assert_eq!(
        (code, text.as_str(), error.as_str()),
        (0, "", "No resources found in default namespace.\n")
    );
    let (code, _, error) = run(&node, &["get", "pod", "gone"]);
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "Error from server (NotFound): pods \"gone\" not found\n"
    );
    assert_eq!(run(&node, &["get", "things"]).0, 2);
}

#[test]
fn a_missing_node_is_said_with_what_to_do() {
    let node = start();
    let mut command = command(&node, &["images"]);
    command.env(ARGUMENTS, "images\n--run-dir=/nonexistent");
    let (code, _, error) = read(command.output().expect("run"));
    assert_eq!(code, 1);
    assert!(
        error.contains("/nonexistent/api.sock") && error.contains("lowtide run"),
        "{error}"
    );
}

#[test]
fn describe_logs_images_and_pull_work() {
    let node = start();
    let (code, text, error) = run(&node, &["describe", "pod", "web"]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(
        text.contains("Name:") && text.contains("Container ID:") && text.contains("Events:"),
        "{text}"
    );
    assert_eq!(run(&node, &["logs", "web"]).1, "hello\n");
    let (_, text, _) = run(&node, &["images"]);
    assert!(
        text.starts_with("IMAGE                            ID             SIZE    PINNED\n"),
        "{text}"
    );
    let (code, text, error) = run(&node, &["pull", "busybox"]);
    assert_eq!((code, text.as_str()), (0, "busybox: abababababab, 4.3MB\n"));
    assert!(error.starts_with("cd: 10B\n"), "{error}");
    let (code, _, error) = run(&node, &["pull", "nowhere"]);
    assert!(code == 1 && error.contains("no route to host"), "{error}");
}

#[test]
fn exec_passes_streams_and_the_exit_code() {
    let node = start();
    let script = "cat; echo problem >&2; exit 7";
    let mut child = command(&node, &["exec", "-i", "web", "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    child
        .stdin
        .take()
        .expect("stdin")
        .write_all(b"input\n")
        .expect("write");
    let (code, text, error) = read(child.wait_with_output().expect("wait"));
    assert_eq!(
        (code, text.as_str(), error.as_str()),
        (7, "input\n", "problem\n")
    );
}

#[test]
fn attach_joins_the_streams_of_the_container() {
    let node = start();
    let mut child = command(&node, &["attach", "-i", "web"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawn");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"typed\n").expect("write");
    drop(stdin);
    let (code, text, error) = read(child.wait_with_output().expect("wait"));
    let said = (code, text.as_str(), error.as_str());
    assert_eq!(said, (0, "ready\ntyped\n", "end\n"));
}

#[test]
fn exec_leaves_the_terminal_as_it_was() {
    let node = start();
    let pty = terminal::open_pty().expect("pty");
    terminal::resize(
        &pty.master,
        terminal::Size {
            rows: 33,
            columns: 99,
        },
    )
    .expect("resize");
    let end = || Stdio::from(pty.slave.try_clone().expect("slave"));
    let settings = || {
        #[allow(clippy::disallowed_methods, reason = "a test's own child")]
        let output = Command::new("stty")
            .arg("-a")
            .stdin(end())
            .output()
            .expect("stty");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let before = settings();
    // The size follows the command's start, as in kubectl.
    let script = "until stty size | grep 33; do sleep 0.02; done; read line; exit 5";
    let mut child = command(&node, &["exec", "-it", "web", "--", "sh", "-c", script])
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .expect("spawn");
    let mut master = std::fs::File::from(pty.master.try_clone().expect("master"));
    let mut shown = String::new();
    let mut buffer = [0; 4096];
    while !shown.contains("33 99") {
        let read = master.read(&mut buffer).expect("read the terminal");
        shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert_ne!(settings(), before, "raw while the command runs");
    master.write_all(b"x\r").expect("type");
    assert_eq!(child.wait().expect("wait").code(), Some(5));
    assert_eq!(settings(), before);
}

/// A file with these objects; its path.
fn file(node: &Node, name: &str, text: &str) -> String {
    let path = node.directory.path().join(name);
    fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn map(value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  a: \"{value}\"\n")
}

const QUOTA: &str = "---\napiVersion: v1\nkind: ResourceQuota\nmetadata: {name: q}\n\
                     spec: {hard: {pods: 5}}\n";

#[test]
fn files_are_applied_and_conflicts_are_told() {
    let node = start();
    let both = file(&node, "both.yaml", &format!("{}{QUOTA}", map("1")));
    let (code, text, error) = run(&node, &["apply", "--dry-run", "-f", &both]);
    assert_eq!((code, error.as_str()), (0, ""));
    let told = "configmap/c serverside-applied (server dry run)\n\
                resourcequota/q serverside-applied (server dry run)\n";
    assert_eq!(text, told);
    assert_eq!(run(&node, &["get", "cm", "c"]).0, 1, "nothing was changed");
    let (_, text, _) = run(&node, &["apply", "-f", &both]);
    let told = "configmap/c serverside-applied\nresourcequota/q serverside-applied\n";
    assert_eq!(text, told);
    let (_, held, _) = run(&node, &["get", "cm", "c", "-o", "yaml"]);
    let ours = held.contains("manager: lowtide") && held.contains("operation: Apply");
    assert!(ours, "{held}");

    // Somebody else takes a field; the file does not get it back unasked.
    let path = "/api/v1/namespaces/default/configmaps/c?fieldManager=hand";
    let merge = "application/merge-patch+json";
    let taken = node.send_as("PATCH", path, merge, "{\"data\":{\"a\":\"2\"}}");
    assert_eq!(taken.code, 200);
    let (code, text, error) = run(&node, &["apply", "-f", &both]);
    let others = "resourcequota/q serverside-applied\n";
    assert_eq!((code, text.as_str()), (1, others));
    let expected = format!(
        "Error from server (Conflict): {both}:1: Apply failed with 1 conflict: conflict with \
         \"hand\" using v1: .data.a\n"
    );
    let advised = error.contains("--force-conflicts");
    assert!(error.starts_with(&expected) && advised, "{error}");
    let forced = run(&node, &["apply", "--force-conflicts", "-f", &both]);
    assert_eq!(forced.0, 0);
}

#[test]
fn objects_are_made_and_deleted_as_kubectl_tells_it() {
    let node = start();
    let both = file(&node, "both.yaml", &format!("{}{QUOTA}", map("1")));
    let (_, text, _) = run(&node, &["create", "-f", &both]);
    assert_eq!(text, "configmap/c created\nresourcequota/q created\n");
    let again = file(&node, "again.yaml", &map("3"));
    let (code, _, error) = run(&node, &["create", "-f", &again]);
    let expected = "Error from server (AlreadyExists): ";
    let expected = format!("{expected}{again}:1: configmaps \"c\" already exists\n");
    assert_eq!((code, error), (1, expected));
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndate: {}\n";
    let unknown = file(&node, "unknown.yaml", text);
    let (code, _, error) = run(&node, &["apply", "-f", &unknown]);
    assert!(code == 1 && error.contains("date"), "{error}");
    assert_eq!(run(&node, &["apply"]).0, 2, "no file");

    let (code, text, error) = run(&node, &["delete", "-f", &both]);
    assert_eq!((code, error.as_str()), (0, ""));
    let told = "configmap \"c\" deleted from default namespace\n\
                resourcequota \"q\" deleted from default namespace\n";
    assert_eq!(text, told);
    let (code, _, error) = run(&node, &["delete", "cm", "c"]);
    let expected = "Error from server (NotFound): configmaps \"c\" not found\n";
    assert_eq!((code, error.as_str()), (1, expected));
    let ignored = run(&node, &["delete", "cm/c", "--ignore-not-found"]);
    assert_eq!(ignored.0, 0);
    assert_eq!(run(&node, &["delete", "cm"]).0, 2);
}
