//! kubectl with a node to talk to.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::isolation::isolated;
use crate::support::{FOREVER, Node, wait_for};

pub struct Ctl {
    program: PathBuf,
    place: PathBuf,
    pub node: Node,
}

/// `LOWTIDE_KUBECTL`, or what `tests/kubectl` has left.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("LOWTIDE_KUBECTL").map(PathBuf::from);
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let left = top.join("target/vm/kubectl/usr/bin/kubectl");
    let found = named.unwrap_or(left);
    found.is_file().then_some(found)
}

/// Runs `body` with a node of its own, in namespaces of its own.
pub fn with_node<F: FnOnce(&Path)>(body: F) {
    match program() {
        Some(_) => isolated(body),
        None => println!("skipped: no kubectl; run tests/kubectl or set LOWTIDE_KUBECTL"),
    }
}

impl Ctl {
    pub fn started(place: &Path) -> Ctl {
        let ctl = Ctl {
            program: program().expect("looked for before"),
            place: place.to_owned(),
            node: Node::started(place),
        };
        ctl.until(
            &["get", "serviceaccount", "default", "-o", "name"],
            |name| !name.is_empty(),
        );
        ctl
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(self.node.root.join("admin.kubeconfig"))
            .args(arguments)
            .env("HOME", &self.place)
            .env_remove("KUBECONFIG")
            .current_dir(&self.place)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("kubectl runs")
    }

    /// What it prints; it must succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let (output, errors) = self.ok_with_errors(arguments);
        assert!(errors.is_empty(), "{arguments:?} says: {errors}");
        output
    }

    /// The same where it may say something beside it.
    pub fn ok_with_errors(&self, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let log = || self.node.log();
        assert!(
            output.status.success(),
            "{arguments:?}: {text}{errors}\n{}",
            log()
        );
        (text, errors)
    }

    /// What it says when it fails, and its code.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success(), "{arguments:?} succeeds: {text}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap_or(-1), errors)
    }

    /// With `text` on its standard input.
    pub fn fed(&self, text: &str, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl runs");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(text.as_bytes()).expect("kubectl reads");
        drop(input);
        child.wait_with_output().expect("kubectl ends")
    }

    pub fn fed_ok(&self, text: &str, arguments: &[&str]) -> String {
        let output = self.fed(text, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert!(errors.is_empty(), "{arguments:?} says: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&all)).expect("JSON")
    }

    /// Starts it with its output in a file.
    pub fn started_into(&self, file: &Path, arguments: &[&str]) -> Running {
        let output = std::fs::File::create(file).expect("a file");
        let child = self.command(arguments).stdout(output).spawn();
        Running(child.expect("kubectl runs"))
    }

    /// A running pod named `name`, of the node's own image.
    pub fn pod(&self, name: &str) {
        self.fed_ok(&pod(name), &["create", "-f", "-"]);
        self.ok(&[
            "wait",
            "--for=condition=Ready",
            &format!("pod/{name}"),
            "--timeout=60s",
        ]);
    }

    /// Polls until what kubectl prints is as wanted.
    pub fn until(&self, arguments: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        wait_for(&format!("{arguments:?}"), || {
            let output = self.run(arguments);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            wanted(&text).then_some(text)
        })
    }

    pub fn finish(self) {
        self.node.finish();
    }
}

/// A kubectl that runs until it is dropped.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A pod's manifest that runs until it is ended.
pub fn pod(name: &str) -> String {
    crate::support::pod(name, FOREVER, "", "")
}

/// The columns of each line, headings first.
pub fn cells(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines();
    lines
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .collect()
        })
        .collect()
}
