use super::read;
use crate::cli::options::{BadValue, RunOptions, SeccompDefault};

fn options(text: &str) -> Result<RunOptions, BadValue> {
    RunOptions::resolve(Vec::new(), read("c.yaml", text)?)
}

#[test]
fn kubelet_fields_and_our_own_are_read() {
    let text = "\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /m
staticPodURL: https://h/m
staticPodURLHeader:
  Authorization: [t]
  X-A: [\"1\", \"2\"]
rootDir: /r
fileCheckFrequency: 1m30s
clusterDNS: [10.0.0.10, \"fd00::a\"]
nodeLabels: {zone: north, tier: \"1\"}
registerWithTaints:
- {key: edge, value: \"true\", effect: NoSchedule}
- {key: bare, effect: NoExecute}
seccompDefault: true
podPidsLimit: 100
containerLogMaxSize: 5Mi
allowedUnsafeSysctls: [\"net.core.*\"]
authentication:
  anonymous: {enabled: false}
  x509: {clientCAFile: \"\"}
securePort: 0
maxPods: null
";
    let options = options(text).expect("all legal");
    assert_eq!(options.pod_manifest_path.as_deref(), Some("/m".as_ref()));
    let headers: Vec<_> = options
        .manifest_url_headers
        .iter()
        .map(|(n, v)| format!("{n}:{v}"))
        .collect();
    assert_eq!(headers, ["authorization:t", "x-a:1", "x-a:2"]);
    assert_eq!(options.file_check_period.as_secs(), 90);
    assert_eq!(options.cluster_dns.len(), 2);
    assert_eq!(options.node_labels.len(), 2);
    assert_eq!(options.register_with_taints[1].key, "bare");
    assert_eq!(options.seccomp_default, SeccompDefault::RuntimeDefault);
    assert_eq!(options.pod_pids_max, Some(100));
    assert_eq!(options.container_log_bytes_max, 5 << 20);
    assert_eq!(options.pods_max, 110);
}

#[test]
fn an_error_names_file_line_and_field() {
    for (text, start) in [
        (
            "rootDir: /r\nrotDir: /x\n",
            "c.yaml:2: rotDir: unknown field, legal are",
        ),
        (
            "\nstaticPodUrl: x\n",
            "c.yaml:2: staticPodUrl: unknown field, did you mean staticPodURL?",
        ),
        (
            "clientCAFile: x\n",
            "c.yaml:1: clientCAFile: unknown field, did you mean authentication.x509.clientCAFile?",
        ),
        (
            "authentication:\n  x509:\n    caFile: x\n",
            "c.yaml:3: authentication.x509.caFile: unknown field",
        ),
        (
            "authentication: x\n",
            "c.yaml:1: authentication: unknown field",
        ),
        (
            "a: b\n# c\nfileCheckFrequency: 20s\n",
            "c.yaml:1: a: unknown field",
        ),
        (
            "rootDir: /r\n\nfileCheckFrequency: often\n",
            "c.yaml:3: fileCheckFrequency: \"often\" is not a duration",
        ),
        (
            "seccompDefault: maybe\n",
            "c.yaml:1: seccompDefault: must be true or false",
        ),
        ("rootDir: [a]\n", "c.yaml:1: rootDir: must be a single text"),
        (
            "registerWithTaints:\n- {name: x}\n",
            "c.yaml:1: registerWithTaints: unknown field name of a taint",
        ),
        (
            "kind: Pod\n",
            "c.yaml:1: kind: must be KubeletConfiguration",
        ),
        (
            "apiVersion: v1\n",
            "c.yaml:1: apiVersion: must be kubelet.config.k8s.io/v1beta1",
        ),
        ("rootDir: /a\nrootDir: /b\n", "c.yaml:2: "),
        ("rootDir: [\n", "c.yaml:"),
        ("- a\n", "c.yaml:1: not a mapping"),
        ("port: 10250\n", "c.yaml:1: port: needs a cluster"),
        (
            "authentication:\n  anonymous:\n    enabled: perhaps\n",
            "c.yaml:3: authentication.anonymous.enabled: ",
        ),
    ] {
        let BadValue(message) = options(text).expect_err(text);
        assert!(message.starts_with(start), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "# nothing\n", "---\n"] {
        assert_eq!(options(text), RunOptions::resolve(Vec::new(), Vec::new()));
    }
}

#[test]
fn the_packaged_configuration_is_legal_and_so_is_each_of_its_examples() {
    let packaged = include_str!("../../packages/config.yaml");
    options(packaged).expect("as it is");
    let examples: String = packaged
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(example) if !example.starts_with(' ') => format!("{example}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert!(examples.contains("\nmaxPods: 30\n"), "{examples}");
    read("c.yaml", &examples).expect("each field of an example");
}
