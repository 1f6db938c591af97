//! `lowtide upgrade` on a node whose agent a small supervisor starts again, as systemd does: a good
//! program, and every sort of bad one, over a pod that must notice nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::isolation::{isolated, run};
use crate::support::{FOREVER, LOWTIDE, Node, container, eventually, pod, restarts};

/// Where the unit looks for the program before, whatever ROOT is.
const GUARDED: &str = "/var/lib/lowtide/upgrade/previous";

/// Directory of the programs of one test, with a minisign key pair.
struct Programs {
    place: PathBuf,
    target: PathBuf,
    good: Vec<u8>,
}

impl Programs {
    fn new(place: &Path) -> Programs {
        let bin = place.join("bin");
        fs::create_dir(&bin).unwrap();
        let target = bin.join("lowtide");
        // As released where there is such a one: what it hashes and copies is smaller.
        let from = std::env::var("LOWTIDE_STATIC").unwrap_or(LOWTIDE.into());
        run("strip", &["-o", text(&target), &from]);
        let programs = Programs {
            good: fs::read(&target).unwrap(),
            place: place.to_path_buf(),
            target,
        };
        for name in ["release", "strange"] {
            let [public, secret] = ["pub", "key"].map(|end| place.join(format!("{name}.{end}")));
            run(
                "minisign",
                &["-G", "-W", "-p", text(&public), "-s", text(&secret)],
            );
        }
        programs
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.place.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn sign(&self, key: &str, program: &Path) {
        let key = self.place.join(format!("{key}.key"));
        run(
            "minisign",
            &[
                "-S",
                "-s",
                text(&key),
                "-m",
                text(program),
                "-t",
                "for a test",
            ],
        );
    }

    /// A signed program that answers for its version, and does this when it is to run.
    fn script(&self, name: &str, act: &str) -> PathBuf {
        let script = format!(
            "#!/bin/sh\ncase $1 in\n--version) echo lowtide 9.9.9 ;;\nrun) {act} ;;\n\
             *) exec {}/real \"$@\" ;;\nesac\n",
            self.place.display(),
        );
        let path = self.write(name, script.as_bytes());
        self.sign("release", &path);
        path
    }

    /// Starts the target again and again, with systemd's guard ahead of it.
    fn supervisor(&self) -> PathBuf {
        let script = format!(
            "#!/bin/sh
trap 'stop=1; kill -TERM $child' TERM
while [ -z \"$stop\" ]; do
    [ ! -x {GUARDED} ] || {GUARDED} upgrade --guard
    {target} \"$@\" & child=$!
    echo $child >{place}/pid
    while wait $child; code=$?; kill -0 $child 2>/dev/null; do :; done
    [ -n \"$stop\" ] || sleep 0.2
done
exit $code
",
            target = self.target.display(),
            place = self.place.display(),
        );
        self.write("supervise", script.as_bytes())
    }

    fn upgrade(&self, node: &Node, program: &Path, more: &[&str]) -> (Option<i32>, String) {
        let key = self.place.join("release.pub");
        let mut arguments = vec!["upgrade", text(program), "--public-key", text(&key)];
        arguments.extend(more);
        said(&node.client(&arguments))
    }

    fn is_in_place(&self, program: &[u8]) -> bool {
        fs::read(&self.target).unwrap() == program
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8(both).unwrap())
}

/// A node under a supervisor, its programs, and the pod that must notice nothing.
struct Story {
    node: Node,
    programs: Programs,
    pod: serde_json::Value,
}

impl Story {
    fn begin(place: &Path) -> Story {
        // A disk of its own that can be filled; it holds a program some twenty times.
        let size = fs::metadata(LOWTIDE).expect("a program").len() * 20;
        let size = format!("size={size}");
        run("mount", &["-t", "tmpfs", "-o", &size, "disk", text(place)]);
        // The default RUN and the default ROOT, which is another than the node's.
        for hidden in ["/run", "/var/lib"] {
            run("mount", &["-t", "tmpfs", "hidden", hidden]);
        }
        let programs = Programs::new(place);
        let mut node = Node::with_run(place, "/run/lowtide".into());
        node.program = programs.supervisor();
        node.manifest("stays.yaml", &pod("stays", FOREVER, "", ""));
        node.start_plain();
        for name in ["early", "late"] {
            let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
            programs.write(name, text.as_bytes());
        }
        node.ok(&["apply", "-f", text(&place.join("early"))]);
        let pod = container(&node.up("stays"), "c")["containerID"].clone();
        Story {
            node,
            programs,
            pod,
        }
    }

    /// Runs `lowtide upgrade`: this must come of it, and this program be in place.
    fn upgrade(&self, program: &Path, more: &[&str], code: i32, parts: &[&str], stays: &[u8]) {
        let (ended, text) = self.programs.upgrade(&self.node, program, more);
        let log = self.node.log();
        assert_eq!(ended, Some(code), "{text}\n{log}");
        for part in parts {
            assert!(text.contains(part), "no {part} in {text}\n{log}");
        }
        assert!(self.programs.is_in_place(stays), "another program: {text}");
        eventually("the API is back", || {
            self.node.client(&["get", "pods"]).status.success()
        });
        let pod = self.node.up("stays");
        assert_eq!(container(&pod, "c")["containerID"], self.pod, "{log}");
        assert_eq!(restarts(&pod, "c"), 0);
        self.node.ok(&["get", "configmap", "early"]);
    }

    /// What is not signed by us comes nowhere near.
    fn refused(&self, new: &Path) {
        let good = &self.programs.good;
        let refused = |program: &Path, part| self.upgrade(program, &[], 1, &[part], good);
        refused(new, "new.minisig: No such file");
        self.programs.sign("strange", new);
        refused(new, "none of the trusted ones");
        self.programs.sign("release", new);
        let changed = [&good[..], b"!"].concat();
        self.programs.write("new", &changed);
        refused(new, "does not fit the file");
        let stranger = self.programs.write("stranger", b"#!/bin/sh\necho hello\n");
        self.programs.sign("release", &stranger);
        refused(&stranger, "this is no lowtide");
        let other = ["--root-dir=/var/lib/lowtide"];
        let part = format!("runs with --root-dir={}", self.node.root.display());
        self.upgrade(new, &other, 1, &[part.as_str()], good);
    }

    /// A program that starts, acknowledges a write, and dies, each time.
    fn dies(&self) -> PathBuf {
        let place = &self.node.place;
        let real = self.programs.write("real", &self.programs.good);
        let act = format!(
            "{real} \"$@\" & n=0
    while [ $n -lt 300 ]; do
        # It went back: this process is the program before now.
        [ \"$(readlink /proc/$!/exe)\" != {target} ] || {{ wait $!; exit; }}
        ! {real} apply -f {late} --run-dir={run} 2>/dev/null || break
        sleep 0.1; n=$((n+1))
    done; kill -9 $!",
            real = real.display(),
            late = place.join("late").display(),
            target = self.programs.target.display(),
            run = self.node.run.display(),
        );
        self.programs.script("dies", &act)
    }
}

#[test]
fn a_good_program_stays_and_each_bad_one_goes_back_under_a_running_pod() {
    isolated(|place| {
        let mut story = Story::begin(place);
        let content = [&story.programs.good[..], b"\n"].concat();
        let new = story.programs.write("new", &content);
        story.refused(&new);

        story.programs.write("new", &content);
        story.upgrade(&new, &[], 0, &["is ready"], &content);
        for name in ["record.json", "previous", "kept"] {
            assert!(
                !story.node.root.join("upgrade").join(name).exists(),
                "{name}"
            );
        }

        let leads = || fs::symlink_metadata(GUARDED).is_ok();
        assert!(!leads(), "the guard has nothing to look for");

        let parts = ["started 3 times", "created ConfigMap default/late"];
        let patient = ["--timeout=300s"];
        story.upgrade(&story.dies(), &patient, 1, &parts, &content);
        assert!(!story.node.ok(&["get", "configmaps"]).contains("late"));
        let (_, state) = said(&story.node.client(&["upgrade"]));
        assert!(
            state.contains("went back at") && state.contains("default/late"),
            "{state}"
        );

        // Never comes as far as to read the record: the guard counts.
        let broken = story.programs.script("broken", "exit 1");
        story.upgrade(&broken, &patient, 1, &["started 3 times"], &content);

        // Ready it would be, with nothing in its store.
        let act = format!(
            "[ -e {spoilt} ] || {{ : >{spoilt}; echo x >{store}; }}; exec {real} \"$@\"",
            spoilt = place.join("spoilt").display(),
            store = story.node.root.join("store.redb").display(),
            real = place.join("real").display(),
        );
        let spoils = story.programs.script("spoils", &act);
        let parts = [
            "store.redb cannot be used",
            "nothing that it acknowledged was lost",
        ];
        story.upgrade(&spoils, &patient, 1, &parts, &content);

        // Neither ready nor dead: the command's time ends it, though there is no room left for anything.
        let fill = place.join("fill");
        let act = format!("cat /dev/zero >{}; exec sleep 1000", fill.display());
        let hangs = story.programs.script("hangs", &act);
        let kill = format!("--restart-command=kill -9 $(cat {}/pid)", place.display());
        let parts = ["not ready in time"];
        story.upgrade(&hangs, &["--timeout=4s", &kill], 1, &parts, &content);
        fs::remove_file(fill).expect("the disk was full");
        let (_, state) = said(&story.node.client(&["upgrade"]));
        assert!(state.contains("went back at"), "{state}");
        assert!(!leads(), "the guard has nothing to look for");

        story.node.terminate();
        story.node.finish();
    });
}
