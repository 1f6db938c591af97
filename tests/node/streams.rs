//! Streams into pods with the real, current kubectl: over WebSocket, and over SPDY as older ones.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::isolation::isolated;
use crate::support::{FOREVER, IMAGE, Node, pod, signal, wait_for};
use crate::tls::kubectl;

/// Variables under which kubectl speaks SPDY.
const SPDY: [&str; 2] = [
    "KUBECTL_REMOTE_COMMAND_WEBSOCKETS",
    "KUBECTL_PORT_FORWARD_WEBSOCKETS",
];

/// What these pods do is no matter of tokens.
const TOKENLESS: &str = r#"--overrides={"spec":{"automountServiceAccountToken":false}}"#;

/// Answers each line that is typed, until one says that it is the end.
const ANSWER: &str = "while read line; do echo got $line; test $line = end && exit 5; done";

/// kubectl against one node, over one of its two transports.
struct Kubectl<'a> {
    program: PathBuf,
    node: &'a Node,
    web_sockets: &'static str,
}

impl Kubectl<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--kubeconfig")
            .arg(self.node.root.join("admin.kubeconfig"))
            .args(arguments)
            .env("HOME", &self.node.place)
            .envs(SPDY.map(|name| (name, self.web_sockets)));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("kubectl")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {errors}\n{}",
            self.node.log()
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input).expect("typed");
        drop(stdin);
        child.wait_with_output().expect("kubectl ends")
    }

    /// The same on a terminal of its own, with lines that are typed.
    fn on_terminal(&self, arguments: &[&str], typed: &[u8]) -> Output {
        let kubectl = self.command(arguments);
        let words = kubectl.get_args().map(|word| word.to_string_lossy());
        let line: Vec<String> = words.map(|word| format!("'{word}'")).collect();
        let line = format!(
            "stty rows 33 cols 99; exec '{}' {}",
            self.program.display(),
            line.join(" ")
        );
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]);
        script.envs(SPDY.map(|name| (name, self.web_sockets)));
        script.env("HOME", &self.node.place);
        script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = script.spawn().expect("script is installed");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(typed).expect("typed");
        let output = child.wait_with_output().expect("kubectl ends");
        drop(stdin);
        output
    }
}

/// A node with a pod, and kubectl over WebSockets and over SPDY in turn.
fn with_kubectl(place: &Path, manifest: &str, name: &str, body: impl Fn(&Kubectl)) {
    let Some(program) = kubectl() else {
        return println!("skipped: no kubectl; run tests/kubectl or set LOWTIDE_KUBECTL");
    };
    let node = Node::started(place);
    node.manifest("a.yaml", manifest);
    node.up(name);
    for web_sockets in ["true", "false"] {
        let program = program.clone();
        body(&Kubectl {
            program,
            node: &node,
            web_sockets,
        });
    }
    node.finish();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn kubectl_runs_commands() {
    isolated(|place| {
        let manifest = pod("web", FOREVER, "", "");
        with_kubectl(place, &manifest, "web", |kubectl| {
            let script = "cat; echo err >&2; exit 3";
            let exec = ["exec", "-i", "web-n", "--", "sh", "-c", script];
            let output = kubectl.with_input(&exec, b"typed");
            assert_eq!(output.status.code(), Some(3), "{output:?}");
            assert_eq!(text(&output.stdout), "typed");
            assert!(text(&output.stderr).starts_with("err\n"), "{output:?}");
            let big = kubectl.ok(&["exec", "web-n", "--", "head", "-c", "5000000", "/dev/zero"]);
            assert_eq!(big.len(), 5_000_000);
            let missing = kubectl.run(&["exec", "web-n", "--", "no-such-program"]);
            assert!(!missing.status.success());
            let shell = ["exec", "-it", "web-n", "--", "sh"];
            let output = kubectl.on_terminal(&shell, b"stty size; test -t 0 && exit 7\n");
            assert!(text(&output.stdout).contains("33 99"), "{output:?}");
            assert_eq!(output.status.code(), Some(7), "{output:?}");
        });
    });
}

#[test]
fn kubectl_copies_files_both_ways() {
    isolated(|place| {
        let manifest = pod("web", FOREVER, "", "");
        with_kubectl(place, &manifest, "web", |kubectl| {
            let (there, back) = (place.join("there"), place.join("back"));
            let _ = fs::remove_dir_all(&there);
            let _ = fs::remove_dir_all(&back);
            fs::create_dir(&there).unwrap();
            let big: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
            fs::write(there.join("big"), &big).unwrap();
            std::os::unix::fs::symlink("big", there.join("link")).unwrap();
            kubectl.ok(&["exec", "web-n", "--", "rm", "-rf", "/tmp/there"]);
            kubectl.ok(&["exec", "web-n", "--", "mkdir", "-p", "/tmp"]);
            let there = there.to_string_lossy();
            kubectl.ok(&["cp", &there, "web-n:/tmp/there"]);
            let link = kubectl.ok(&["exec", "web-n", "--", "readlink", "/tmp/there/link"]);
            assert_eq!(link, "big\n");
            kubectl.ok(&["cp", "web-n:/tmp/there", &back.to_string_lossy()]);
            assert!(fs::read(back.join("big")).unwrap() == big);
        });
    });
}

/// `kubectl port-forward` under way, and the port it listens on.
struct Forward(Child, u16);

impl Drop for Forward {
    fn drop(&mut self) {
        signal(self.0.id(), "TERM");
        let _ = self.0.wait();
    }
}

impl Forward {
    fn start(kubectl: &Kubectl, port: &str) -> Forward {
        Forward::to(kubectl, "web-n", port)
    }

    fn to(kubectl: &Kubectl, pod: &str, port: &str) -> Forward {
        let mut command = kubectl.command(&["port-forward", pod, &format!(":{port}")]);
        let out = kubectl.node.place.join("forward.out");
        let file = fs::File::create(&out).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().expect("kubectl");
        let port = wait_for("kubectl listens", || {
            let said = fs::read_to_string(&out).unwrap();
            let rest = said.split_once("127.0.0.1:")?.1;
            rest.split_once(' ')?.0.parse().ok()
        });
        Forward(child, port)
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.1)).expect("kubectl accepts")
    }
}

#[test]
fn kubectl_forwards_ports() {
    isolated(|place| {
        let serve = "nc -ll -p 7000 -e cat & httpd -p [::1]:7003 -h /etc; \
                     exec nc -ll -p 7001 -e sh -c 'head -c 3000000 /dev/zero'";
        let manifest = pod("web", serve, "", "");
        with_kubectl(place, &manifest, "web", |kubectl| {
            let echo = Forward::start(kubectl, "7000");
            let mut several: Vec<TcpStream> = (0..4).map(|_| echo.connect()).collect();
            for (index, stream) in several.iter_mut().enumerate() {
                stream
                    .write_all(format!("hello {index}").as_bytes())
                    .unwrap();
            }
            for (index, stream) in several.iter_mut().enumerate().rev() {
                let mut back = [0; 7];
                stream.read_exact(&mut back).expect("an echo");
                assert_eq!(text(&back), format!("hello {index}"));
            }
            let big = Forward::start(kubectl, "7001");
            let mut all = Vec::new();
            big.connect().read_to_end(&mut all).expect("all of it");
            assert_eq!(all.len(), 3_000_000);
            // One that listens to its own IPv6 alone, and one in the node's network.
            let host = pod(
                "host",
                "exec httpd -f -p 127.0.0.1:7004 -h /etc",
                "",
                "  hostNetwork: true",
            );
            kubectl.node.manifest("host.yaml", &host);
            kubectl.node.up("host");
            for (name, port) in [("web-n", "7003"), ("host-n", "7004")] {
                let forward = Forward::to(kubectl, name, port);
                let mut stream = forward.connect();
                stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n").unwrap();
                let mut page = String::new();
                stream.read_to_string(&mut page).expect("a page");
                assert!(page.contains("root:x:0:0"), "{name}: {page}");
            }
            let refused = Forward::start(kubectl, "7002");
            let mut nothing = Vec::new();
            let _ = refused.connect().read_to_end(&mut nothing);
            assert!(nothing.is_empty());
            wait_for("kubectl says why", || {
                let said = fs::read_to_string(place.join("forward.out")).unwrap();
                said.contains("connection refused").then_some(())
            });
        });
    });
}

/// Words of a command line; none of them has a blank in it.
fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn kubectl_runs_pods_and_stays_attached() {
    isolated(|place| {
        let manifest = pod("web", FOREVER, "", "");
        with_kubectl(place, &manifest, "web", |kubectl| {
            let options = format!("--rm --restart=Never {TOKENLESS} --image={IMAGE} --");
            let run = format!("run once -it {options} sh -c");
            let output =
                kubectl.on_terminal(&[&words(&run)[..], &[ANSWER]].concat(), b"one\nend\n");
            let log = kubectl.node.log();
            assert!(
                text(&output.stdout).contains("got end"),
                "{output:?}\n{log}"
            );
            let left = kubectl.run(&["get", "pod", "once"]);
            assert!(text(&left.stderr).contains("not found"), "{left:?}");
            let run = format!("run piped -i -q {options} wc -c");
            let output = kubectl.with_input(&words(&run), b"12345");
            assert!(text(&output.stdout).contains('5'), "{output:?}");
        });
    });
}

#[test]
fn kubectl_debugs_a_pod_with_a_container_of_its_own() {
    isolated(|place| {
        let manifest = pod("web", FOREVER, "", "");
        with_kubectl(place, &manifest, "web", |kubectl| {
            let run = format!("run debugged {TOKENLESS} --image={IMAGE} -- sleep 1000");
            kubectl.ok(&words(&run));
            kubectl.ok(&words(
                "wait --for=condition=Ready pod/debugged --timeout=40s",
            ));
            let debug = format!("debug debugged -it --image={IMAGE} --target=debugged -- sh -c");
            let debug = [&words(&debug)[..], &[ANSWER]].concat();
            let output = kubectl.on_terminal(&debug, b"one\nend\n");
            let log = kubectl.node.log();
            assert!(
                text(&output.stdout).contains("got end"),
                "{output:?}\n{log}"
            );
            kubectl.ok(&words(
                "delete pod debugged --grace-period=0 --force --wait",
            ));
        });
    });
}
