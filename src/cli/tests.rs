use std::ffi::OsString;
use std::path::Path;

use super::flags::{FLAGS, Shape};
use super::options::SealingKeys;
use super::{CheckOptions, Invocation, Refusal, parse};

fn arguments(line: &[&str]) -> Vec<OsString> {
    let program = std::iter::once("lowtide");
    program
        .chain(line.iter().copied())
        .map(OsString::from)
        .collect()
}

fn wrong(line: &[&str]) -> String {
    match parse(arguments(line)) {
        Err(Refusal::Wrong(text)) => text,
        other => panic!("{line:?}: {other:?}"),
    }
}

/// A legal value that turns a missing feature off.
fn legal_value(name: &str) -> &'static str {
    match name {
        "manifest-url" => "http://h/m",
        "manifest-url-header" => "a:b",
        "node-ip" | "cluster-dns" => "10.0.0.1",
        "node-labels" => "a=b",
        "register-with-taints" => "a=b:NoSchedule",
        "pod-cidr" => "10.1.0.0/16",
        "cgroup-root" => "/pods",
        "max-pods" | "container-log-max-files" | "pod-max-pids" => "7",
        "image-gc-high-threshold" => "90",
        "image-gc-low-threshold" => "50",
        "eviction-hard" => "memory.available<50Mi",
        "eviction-soft" => "",
        "eviction-soft-grace-period" => "memory.available=1m",
        "eviction-minimum-reclaim" => "memory.available=10%",
        "eviction-max-pod-grace-period" => "30",
        "eviction-pressure-transition-period" => "1m",
        "container-log-max-size" => "1Mi",
        "bind-address" => "0.0.0.0",
        "secure-port" => "6444",
        "address" => "127.0.0.1",
        "port" => "0",
        "seccomp-default" | "exit-stops-pods" | "anonymous-auth" | "rotate-server-certificates" => {
            "true"
        }
        "hostname-override" => "pi",
        "api-server" => "https://h:6443",
        "register-node" => "false",
        "provider-id" | "cloud-provider" => "",
        "authorization-mode" => "Node,AlwaysDeny",
        name if name.contains("admission") => "AlwaysPullImages,ResourceQuota",
        _ if name.contains("frequency") || name.contains("duration") => "30s",
        _ => "/x",
    }
}

#[test]
fn every_flag_is_taken_in_each_spelling() {
    for flag in FLAGS {
        let value = legal_value(flag.name);
        for name in std::iter::once(&flag.name).chain(flag.aliases) {
            for name in [(*name).to_owned(), name.replace('-', "_")] {
                let joined = format!("--{name}={value}");
                let apart = format!("--{name}");
                for mut line in [vec!["run", &joined], vec!["run", &apart, value]] {
                    match flag.name {
                        "authorization-policy-file" => line.push("--authorization-mode=ABAC"),
                        "bootstrap-kubeconfig" => line.push("--kubeconfig=/k"),
                        _ => {}
                    }
                    let parsed = parse(arguments(&line));
                    assert!(
                        matches!(parsed, Ok(Invocation::Run(_))),
                        "{line:?}: {parsed:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_mode_that_is_missing_is_fatal_and_says_what_to_do() {
    let text = wrong(&["run", "--authorization_mode=RBAC"]);
    assert!(text.contains("not available in this version"), "{text}");
    assert!(text.contains("use ABAC"), "{text}");
    for flag in FLAGS.iter().filter(|flag| flag.shape == Shape::Switch) {
        wrong(&["run", &format!("--{}=perhaps", flag.name)]);
    }
}

const WRONG: &[(&[&str], &[&str])] = &[
    (
        &["run", "--rot-dir=/x"],
        &["--rot-dir", "--root-dir", "--pod-manifest-path"],
    ),
    (
        &["run", "--file-check-frequency=20"],
        &["--file-check-frequency", "\"20\"", "1m30s"],
    ),
    (
        &["run", "--file-check-frequency=1ns"],
        &["too short", "100ms"],
    ),
    (&["run", "--secure-port=99999"], &["--secure-port", "65535"]),
    (
        &["run", "--cloud-provider=aws"],
        &["\"aws\"", "\"\"", "\"external\""],
    ),
    (
        &["run", "--authorization-mode=ABAC,Nope"],
        &["\"Nope\"", "AlwaysAllow, AlwaysDeny, ABAC, Node"],
    ),
    (
        &["run", "--authorization_mode=ABAC"],
        &["--authorization-mode", "--authorization-policy-file"],
    ),
    (
        &["run", "--authorization_polic_file=/x"],
        &["--authorization-policy-file", "--authorization-mode=ABAC"],
    ),
    (
        &["run", "--admission_control=Nope"],
        &["--admission-control", "\"Nope\"", "\"NamespaceLifecycle\""],
    ),
    (
        &[
            "run",
            "--admission-control=AlwaysAdmit",
            "--enable-admission-plugins=Priority",
        ],
        &["mutually exclusive"],
    ),
    (
        &["run", "--pod-cidr=10.0.0.0"],
        &["--pod-cidr", "10.88.0.0/24"],
    ),
    (&["run", "--pod-cidr=10.0.0.0/33"], &["10.88.0.0/24"]),
    (
        &["run", "--pod-cidr=fd00::/64"],
        &["--pod-cidr", "no IPv6", "10.88.0.0/24"],
    ),
    (
        &["run", "--pod-cidr=10.88.0.7/24"],
        &["--pod-cidr", "did you mean 10.88.0.0/24"],
    ),
    (
        &["run", "--node-labels=zone"],
        &["--node-labels", "zone=north"],
    ),
    (
        &[
            "run",
            "--kubeconfig=/k",
            "--node-labels=node-role.kubernetes.io/edge=",
        ],
        &[
            "--node-labels",
            "node-role.kubernetes.io/edge",
            "kubelet.kubernetes.io",
        ],
    ),
    (
        &["run", "--node-ip=10.0.0.1,10.0.0.2"],
        &["--node-ip", "family"],
    ),
    (
        &["run", "--node-ip=0.0.0.0,fd00::1"],
        &["--node-ip", "family"],
    ),
    (&["run", "--node-ip=127.0.0.1"], &["--node-ip", "loopback"]),
    (&["run", "--node-ip=fe80::1"], &["--node-ip", "link-local"]),
    (&["run", "--node-ip=224.0.0.1"], &["--node-ip", "multicast"]),
    (
        &["run", "--register-with-taints=a=b:Never"],
        &["NoSchedule", "NoExecute"],
    ),
    (
        &["run", "--manifest-url=ftp://h"],
        &["--manifest-url", "\"http\"", "\"https\""],
    ),
    (
        &["run", "--manifest-url-header=x"],
        &["--manifest-url-header"],
    ),
    (&["run", "--hostname-override=a_b"], &["a_b"]),
    (&["run", "--container-log-max-size=10MB"], &["10Mi"]),
    (&["run", "--container-log-max-files=1"], &["from 2"]),
    (&["run", "--image-gc-low-threshold=95"], &["95", "85"]),
    (&["run", "--cgroup-root=../x"], &["/pods"]),
    (&["run", "--root-dir="], &["--root-dir", "empty"]),
    (&["run", "--root-dir"], &["--root-dir"]),
    (&["run", "word"], &["word"]),
    (
        &["run", "--config=/nonexistent"],
        &["--config", "/nonexistent"],
    ),
    (&["rum"], &["rum", "run", "check", "logs"]),
    (&[], &["run", "check", "completions"]),
    (&["completions", "tcsh"], &["tcsh", "bash", "zsh", "fish"]),
    (&["check", "--what"], &["--what"]),
];

#[test]
fn a_wrong_command_line_is_told_in_one_line_with_what_is_legal() {
    for (line, parts) in WRONG {
        let text = wrong(line);
        assert!(
            !text.contains('\n') && text.starts_with("lowtide"),
            "{text:?}"
        );
        for part in *parts {
            assert!(text.contains(part), "{line:?}: {text}");
        }
    }
}

#[test]
fn help_version_and_completions_are_shown() {
    for line in [
        &["--help"][..],
        &["run", "--help"],
        &["--version"],
        &["logs", "-h"],
    ] {
        let shown = parse(arguments(line));
        assert!(matches!(shown, Err(Refusal::Shown(_))), "{shown:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let parsed = parse(arguments(&["completions", shell]));
        assert!(matches!(parsed, Ok(Invocation::Completions(name)) if name == shell));
        let mut script = Vec::new();
        super::completions::write(shell, &mut script).unwrap();
        assert!(String::from_utf8_lossy(&script).contains("pod-manifest-path"));
    }
}

#[test]
fn check_and_the_client_get_their_arguments() {
    let Ok(Invocation::Check(options)) = parse(arguments(&["check", "--root-dir", "/r"])) else {
        panic!("check");
    };
    let expected = CheckOptions {
        root_dir: "/r".into(),
        run_dir: "/run/lowtide".into(),
        runtime: None,
        cni_conf_dir: None,
    };
    assert_eq!(options, expected);
    let line = ["exec", "-it", "web", "--", "echo", "--a_b"];
    let Ok(Invocation::Client { command, arguments }) = parse(arguments(&line)) else {
        panic!("exec");
    };
    assert_eq!(command, "exec");
    let words: Vec<&String> = arguments.get_many("command").expect("words").collect();
    assert_eq!(words, ["echo", "--a_b"]);
}

#[test]
fn a_configuration_is_tried_by_check_which_looks_at_what_it_names() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("config.yaml");
    let file = file.to_str().expect("a plain name");
    let check = || parse(arguments(&["check", "--config", file]));
    std::fs::write(file, "rootDir: /file\nruntime: crun\n").expect("written");
    let Ok(Invocation::Check(options)) = check() else {
        panic!("check");
    };
    assert_eq!(options.root_dir, Path::new("/file"));
    assert_eq!(options.runtime.as_deref(), Some("crun"));
    std::fs::write(file, "maxPods: 5\nmaxPods: 6\n").expect("written");
    let Err(Refusal::Wrong(line)) = check() else {
        panic!("refused");
    };
    assert!(
        line.ends_with("config.yaml:2: duplicate mapping key: maxPods"),
        "{line}"
    );
}

#[test]
fn the_command_line_beats_the_file_and_keeps_values_as_they_are() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("config.yaml");
    std::fs::write(
        &file,
        "rootDir: /file\nrunDir: /file_run\nclusterDNS: [1.1.1.1]\n",
    )
    .expect("write");
    let config = format!("--config={}", file.display());
    let line = [
        "run",
        &config,
        "--root_dir=/a_b",
        "--cluster-dns",
        "2.2.2.2",
        "--cluster-dns=3.3.3.3",
    ];
    let Ok(Invocation::Run(options)) = parse(arguments(&line)) else {
        panic!("run");
    };
    assert_eq!(options.root_dir.to_str(), Some("/a_b"));
    assert_eq!(options.image_dir.to_str(), Some("/a_b/preload"));
    assert_eq!(options.run_dir.to_str(), Some("/file_run"));
    let dns: Vec<String> = options
        .cluster_dns
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(dns, ["2.2.2.2", "3.3.3.3"]);
}

#[test]
fn directories_become_absolute() {
    let line = ["run", "--run-dir=run", "--root-dir=/r"];
    let Ok(Invocation::Run(options)) = parse(arguments(&line)) else {
        panic!("run");
    };
    let here = std::env::current_dir().expect("a working directory");
    assert_eq!(options.run_dir, here.join("run"));
    assert_eq!(options.root_dir.to_str(), Some("/r"));
}

#[test]
fn keys_for_secrets_come_from_the_node_a_file_or_nowhere() {
    for (flag, expected) in [
        ("--encryption-key-file=", SealingKeys::Own),
        ("--encryption-key-file=none", SealingKeys::Off),
        ("--encryption-key-file=/k", SealingKeys::File("/k".into())),
    ] {
        let Ok(Invocation::Run(options)) = parse(arguments(&["run", flag])) else {
            panic!("run {flag}");
        };
        assert_eq!(options.encryption, expected, "{flag}");
    }
}
