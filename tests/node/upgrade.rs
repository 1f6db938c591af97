//! `lowtide upgrade` on a node whose agent a small supervisor starts again, as systemd does: a good
//! program, and every sort of bad one, over a pod that must notice nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::isolation::{isolated, run};
use crate::support::{FOREVER, LOWTIDE, Node, container, eventually, pod, restarts};

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

    /// Starts the target again and again, with the guard of the program before ahead of it.
    fn supervisor(&self, node: &Node) -> PathBuf {
        let (root, run_dir) = (node.root.display(), node.run.display());
        let script = format!(
            "#!/bin/sh
trap 'stop=1; kill -TERM $child' TERM
while [ -z \"$stop\" ]; do
    p={root}/upgrade/previous
    [ ! -x $p ] || $p upgrade --guard --root-dir={root} --run-dir={run_dir}
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
        let root = format!("--root-dir={}", node.root.display());
        let mut arguments = vec!["upgrade", text(program), &root, "--public-key", text(&key)];
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

#[test]
fn a_good_program_stays_and_each_bad_one_goes_back_under_a_running_pod() {
    isolated(|place| {
        let programs = Programs::new(place);
        let mut node = Node::new(place);
        node.program = programs.supervisor(&node);
        node.manifest("stays.yaml", &pod("stays", FOREVER, "", ""));
        node.start_plain();
        let before = container(&node.up("stays"), "c")["containerID"].clone();
        for name in ["early", "late"] {
            let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
            programs.write(name, text.as_bytes());
        }
        node.ok(&["apply", "-f", text(&place.join("early"))]);
        let unharmed = |node: &Node| {
            eventually("the API is back", || {
                node.client(&["get", "pods"]).status.success()
            });
            let pod = node.up("stays");
            assert_eq!(
                container(&pod, "c")["containerID"],
                before,
                "{}",
                node.log()
            );
            assert_eq!(restarts(&pod, "c"), 0);
            node.ok(&["get", "configmap", "early"]);
        };

        // What is not signed by us comes nowhere near.
        let new = programs.write("new", &[&programs.good[..], b"\n"].concat());
        let (code, text) = programs.upgrade(&node, &new, &[]);
        assert!(
            code == Some(1) && text.contains("new.minisig: No such file"),
            "{text}"
        );
        programs.sign("strange", &new);
        let (code, text) = programs.upgrade(&node, &new, &[]);
        assert!(
            code == Some(1) && text.contains("none of the trusted ones"),
            "{text}"
        );
        programs.sign("release", &new);
        programs.write("new", &[&programs.good[..], b"!"].concat());
        let (code, text) = programs.upgrade(&node, &new, &[]);
        assert!(
            code == Some(1) && text.contains("does not fit the file"),
            "{text}"
        );
        let stranger = programs.write("stranger", b"#!/bin/sh\necho hello\n");
        programs.sign("release", &stranger);
        let (code, text) = programs.upgrade(&node, &stranger, &[]);
        assert!(
            code == Some(1) && text.contains("this is no lowtide"),
            "{text}"
        );
        assert!(programs.is_in_place(&programs.good));
        unharmed(&node);

        let content = [&programs.good[..], b"\n"].concat();
        programs.write("new", &content);
        let (code, text) = programs.upgrade(&node, &new, &[]);
        assert!(
            code == Some(0) && text.contains("is ready"),
            "{text}\n{}",
            node.log()
        );
        assert!(programs.is_in_place(&content));
        assert!(!node.root.join("upgrade/record.json").exists());
        assert!(!node.root.join("upgrade/previous").exists());
        unharmed(&node);

        // Starts, acknowledges a write, and dies, each time.
        programs.write("real", &programs.good);
        let real = place.join("real");
        let dies = programs.script(
            "dies",
            &format!(
                "{real} \"$@\" & n=0
    while [ $n -lt 300 ]; do
        # It went back: this process is the program before now.
        [ \"$(readlink /proc/$!/exe)\" != {target} ] || {{ wait $!; exit; }}
        ! {real} apply -f {late} --run-dir={run} 2>/dev/null || break
        sleep 0.1; n=$((n+1))
    done; kill -9 $!",
                real = real.display(),
                late = place.join("late").display(),
                target = programs.target.display(),
                run = node.run.display(),
            ),
        );
        let (code, text) = programs.upgrade(&node, &dies, &["--timeout=300s"]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("started 3 times"), "{text}\n{}", node.log());
        assert!(text.contains("created ConfigMap default/late"), "{text}");
        assert!(programs.is_in_place(&content));
        unharmed(&node);
        assert!(!node.ok(&["get", "configmaps"]).contains("late"));
        let (_, state) =
            said(&node.client(&["upgrade", &format!("--root-dir={}", node.root.display())]));
        assert!(
            state.contains("went back") && state.contains("default/late"),
            "{state}"
        );

        // Never comes as far as to read the record.
        let broken = programs.script("broken", "exit 1");
        let (code, text) = programs.upgrade(&node, &broken, &["--timeout=300s"]);
        assert!(
            code == Some(1) && text.contains("started 3 times"),
            "{text}"
        );
        assert!(programs.is_in_place(&content));
        unharmed(&node);

        // Neither ready nor dead: the command's time ends it.
        let hangs = programs.script("hangs", "exec sleep 1000");
        let kill = format!("--restart-command=kill -9 $(cat {}/pid)", place.display());
        let (code, text) = programs.upgrade(&node, &hangs, &["--timeout=4s", &kill]);
        assert!(
            code == Some(1) && text.contains("not ready in time"),
            "{text}"
        );
        assert!(programs.is_in_place(&content));
        unharmed(&node);
        assert!(node.log().contains("went back to"), "{}", node.log());

        node.flags.push("--exit-stops-pods".into());
        node.terminate();
        node.finish();
    });
}
