//! Every flag of `lowtide run`: spelling, configuration field, shape, default, help. One table.
//!
//! Command line, configuration file, help, completions and error texts are all made from it, so
//! they cannot disagree. Values become options in `options`.

use crate::kubelet::pressure::thresholds::HARD_DEFAULT;

/// What a flag's value looks like, in both the command line and the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One text or number.
    Scalar,
    /// `true` or `false`; alone on the command line it is `true`.
    Switch,
    /// Comma-separated or repeated; a list in the file.
    List,
    /// `name=value`, comma-separated or repeated; a map in the file.
    Labels,
    /// `name<value`, comma-separated; a map in the file.
    Limits,
    /// `name:value`, comma-separated or repeated; a map of lists in the file.
    Headers,
    /// `key=value:effect`; a list of objects in the file.
    Taints,
}

pub struct Flag {
    /// Without dashes in front.
    pub name: &'static str,
    /// Other accepted spellings, not shown in help.
    pub aliases: &'static [&'static str],
    /// Path in the configuration file.
    pub field: &'static str,
    pub shape: Shape,
    pub value_name: &'static str,
    /// As help shows it.
    pub default: &'static str,
    pub help: &'static str,
}

const fn flag(
    name: &'static str,
    field: &'static str,
    shape: Shape,
    value_name: &'static str,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        aliases: &[],
        field,
        shape,
        value_name,
        default,
        help,
    }
}

const fn also(flag: Flag, aliases: &'static [&'static str]) -> Flag {
    Flag { aliases, ..flag }
}

use Shape::{Headers, Labels, Limits, List, Scalar, Switch, Taints};

/// In the order of help.
pub const FLAGS: &[Flag] = &[
    flag(
        "pod-manifest-path",
        "staticPodPath",
        Scalar,
        "PATH",
        "/etc/lowtide/manifests",
        "directory or file with manifests",
    ),
    flag(
        "manifest-url",
        "staticPodURL",
        Scalar,
        "URL",
        "",
        "URL with a pod or a list of pods",
    ),
    flag(
        "manifest-url-header",
        "staticPodURLHeader",
        Headers,
        "NAME:VALUE",
        "",
        "headers for --manifest-url",
    ),
    flag(
        "file-check-frequency",
        "fileCheckFrequency",
        Scalar,
        "DURATION",
        "20s",
        "how often manifests are looked at unasked",
    ),
    flag(
        "http-check-frequency",
        "httpCheckFrequency",
        Scalar,
        "DURATION",
        "20s",
        "how often --manifest-url is asked",
    ),
    flag(
        "root-dir",
        "rootDir",
        Scalar,
        "DIR",
        "/var/lib/lowtide",
        "store, images and pods' volumes (ROOT)",
    ),
    flag(
        "run-dir",
        "runDir",
        Scalar,
        "DIR",
        "/run/lowtide",
        "sockets and runtime state, on a tmpfs (RUN)",
    ),
    flag(
        "pod-logs-dir",
        "podLogsDir",
        Scalar,
        "DIR",
        "/var/log/pods",
        "containers' logs",
    ),
    flag(
        "image-dir",
        "imageDir",
        Scalar,
        "DIR",
        "ROOT/preload",
        "image archives and layouts imported as they appear",
    ),
    flag(
        "registry-config",
        "registryConfig",
        Scalar,
        "FILE",
        "",
        "registry mirrors, extra CAs, plain HTTP",
    ),
    flag(
        "runtime",
        "runtime",
        Scalar,
        "NAME|PATH",
        "auto",
        "OCI runtime: runc, crun, youki or a path",
    ),
    flag(
        "hostname-override",
        "hostnameOverride",
        Scalar,
        "NAME",
        "host's",
        "name of the node",
    ),
    flag(
        "node-ip",
        "nodeIP",
        List,
        "IP",
        "host's",
        "address of the node, one for each family",
    ),
    flag(
        "node-labels",
        "nodeLabels",
        Labels,
        "NAME=VALUE",
        "",
        "labels of the node",
    ),
    flag(
        "register-with-taints",
        "registerWithTaints",
        Taints,
        "KEY=VALUE:EFFECT",
        "",
        "taints of the node",
    ),
    flag(
        "provider-id",
        "providerID",
        Scalar,
        "ID",
        "",
        "the cloud's name of this machine",
    ),
    flag(
        "pod-cidr",
        "podCIDR",
        Scalar,
        "CIDR",
        "10.88.0.0/24",
        "addresses of the built-in pod network",
    ),
    flag(
        "cni-conf-dir",
        "cniConfDir",
        Scalar,
        "DIR",
        "",
        "CNI configuration in place of the built-in pod network",
    ),
    flag(
        "resolv-conf",
        "resolvConf",
        Scalar,
        "FILE",
        "/etc/resolv.conf",
        "the host's resolver configuration for pods",
    ),
    flag(
        "cluster-dns",
        "clusterDNS",
        List,
        "IP",
        "",
        "name servers of dnsPolicy ClusterFirst",
    ),
    flag(
        "cluster-domain",
        "clusterDomain",
        Scalar,
        "DOMAIN",
        "",
        "domain for search lists",
    ),
    flag(
        "cgroup-root",
        "cgroupRoot",
        Scalar,
        "PATH",
        "/",
        "cgroup below which pods live",
    ),
    flag(
        "max-pods",
        "maxPods",
        Scalar,
        "N",
        "110",
        "pods on this node",
    ),
    flag(
        "pod-max-pids",
        "podPidsLimit",
        Scalar,
        "N",
        "-1",
        "processes of one pod, -1 for no limit",
    ),
    flag(
        "seccomp-default",
        "seccompDefault",
        Switch,
        "BOOL",
        "false",
        "RuntimeDefault where a pod names no seccomp profile",
    ),
    flag(
        "allowed-unsafe-sysctls",
        "allowedUnsafeSysctls",
        List,
        "NAME",
        "",
        "sysctls that pods may set beyond the safe ones, * at the end",
    ),
    flag(
        "container-log-max-size",
        "containerLogMaxSize",
        Scalar,
        "SIZE",
        "10Mi",
        "size at which a log is rotated",
    ),
    flag(
        "container-log-max-files",
        "containerLogMaxFiles",
        Scalar,
        "N",
        "5",
        "log files kept for one container, at least 2",
    ),
    flag(
        "image-gc-high-threshold",
        "imageGCHighThresholdPercent",
        Scalar,
        "PERCENT",
        "85",
        "disk use that starts image collection",
    ),
    flag(
        "image-gc-low-threshold",
        "imageGCLowThresholdPercent",
        Scalar,
        "PERCENT",
        "80",
        "disk use that ends it",
    ),
    flag(
        "minimum-image-ttl-duration",
        "imageMinimumGCAge",
        Scalar,
        "DURATION",
        "2m",
        "unused images are kept at least this long",
    ),
    flag(
        "eviction-hard",
        "evictionHard",
        Limits,
        "SIGNAL<AMOUNT,…",
        HARD_DEFAULT,
        "shortages at which pods are evicted at once",
    ),
    flag(
        "eviction-soft",
        "evictionSoft",
        Limits,
        "SIGNAL<AMOUNT,…",
        "",
        "shortages at which pods are evicted when they last",
    ),
    flag(
        "eviction-soft-grace-period",
        "evictionSoftGracePeriod",
        Labels,
        "SIGNAL=DURATION,…",
        "",
        "how long they last before that",
    ),
    flag(
        "eviction-max-pod-grace-period",
        "evictionMaxPodGracePeriod",
        Scalar,
        "SECONDS",
        "0",
        "most that a pod is given to stop then",
    ),
    flag(
        "eviction-minimum-reclaim",
        "evictionMinimumReclaim",
        Labels,
        "SIGNAL=AMOUNT,…",
        "",
        "how much more must be free before a shortage is over",
    ),
    flag(
        "eviction-pressure-transition-period",
        "evictionPressureTransitionPeriod",
        Scalar,
        "DURATION",
        "5m",
        "how long a condition of pressure lasts after its cause",
    ),
    flag(
        "node-status-update-frequency",
        "nodeStatusUpdateFrequency",
        Scalar,
        "DURATION",
        "10s",
        "how often the node's status is computed",
    ),
    flag(
        "exit-stops-pods",
        "exitStopsPods",
        Switch,
        "BOOL",
        "false",
        "stop all pods on SIGTERM (for examples and tests)",
    ),
    flag(
        "bind-address",
        "bindAddress",
        Scalar,
        "IP",
        "127.0.0.1",
        "address of the TLS API",
    ),
    flag(
        "secure-port",
        "securePort",
        Scalar,
        "PORT",
        "6443",
        "port of the TLS API, 0 turns it off",
    ),
    flag(
        "client-ca-file",
        "authentication.x509.clientCAFile",
        Scalar,
        "FILE",
        "",
        "CA of client certificates beside the node's own, read again on SIGHUP",
    ),
    flag(
        "token-auth-file",
        "tokenAuthFile",
        Scalar,
        "FILE",
        "",
        "static tokens: token,user,uid,\"group,group\"; read again on SIGHUP",
    ),
    flag(
        "basic-auth-file",
        "basicAuthFile",
        Scalar,
        "FILE",
        "",
        "static passwords: password,user,uid,\"group,group\"; read again on SIGHUP",
    ),
    flag(
        "anonymous-auth",
        "authentication.anonymous.enabled",
        Switch,
        "BOOL",
        "false",
        "requests without credentials",
    ),
    flag(
        "authorization-mode",
        "authorization.mode",
        List,
        "MODE",
        "",
        "AlwaysAllow, AlwaysDeny, ABAC, Node in order; none: system:masters only",
    ),
    also(
        flag(
            "authorization-policy-file",
            "authorizationPolicyFile",
            Scalar,
            "FILE",
            "",
            "policy of mode ABAC, read again on SIGHUP",
        ),
        &["authorization-polic-file"],
    ),
    flag(
        "encryption-key-file",
        "encryptionKeyFile",
        Scalar,
        "FILE",
        "",
        "keys for Secrets on disk, read again on SIGHUP; none: no encryption",
    ),
    flag(
        "admission-control",
        "admissionControl",
        List,
        "PLUGIN",
        "",
        "exactly these admission plug-ins, in this order",
    ),
    flag(
        "enable-admission-plugins",
        "enableAdmissionPlugins",
        List,
        "PLUGIN",
        "",
        "admission plug-ins beside the default ones",
    ),
    flag(
        "disable-admission-plugins",
        "disableAdmissionPlugins",
        List,
        "PLUGIN",
        "",
        "default admission plug-ins to leave out",
    ),
    flag(
        "kubeconfig",
        "kubeconfig",
        Scalar,
        "FILE",
        "",
        "how to reach the remote cluster",
    ),
    flag(
        "bootstrap-kubeconfig",
        "bootstrapKubeconfig",
        Scalar,
        "FILE",
        "",
        "how to get the node's certificate, which --kubeconfig then names",
    ),
    also(
        flag(
            "api-server",
            "apiServer",
            List,
            "URL",
            "kubeconfig's",
            "API servers of the cluster, tried in turn",
        ),
        &["api-servers", "master"],
    ),
    flag(
        "register-node",
        "registerNode",
        Switch,
        "BOOL",
        "true",
        "create the Node in the remote cluster",
    ),
    flag(
        "cloud-provider",
        "cloudProvider",
        Scalar,
        "external|URL|FILE",
        "",
        "external: a controller of the cloud gives addresses; else JSON that says where the machine is",
    ),
    flag(
        "address",
        "address",
        Scalar,
        "IP",
        "0.0.0.0",
        "address of the kubelet's endpoints",
    ),
    flag(
        "port",
        "port",
        Scalar,
        "PORT",
        "10250",
        "port of the kubelet's endpoints on a node of a cluster, 0 turns it off",
    ),
    flag(
        "rotate-server-certificates",
        "serverTLSBootstrap",
        Switch,
        "BOOL",
        "false",
        "ask the cluster for the certificate of these endpoints; somebody has to approve it",
    ),
];

/// The flag of this name or alias, with `_` and `-` alike.
pub fn find(name: &str) -> Option<&'static Flag> {
    let name = name.replace('_', "-");
    FLAGS
        .iter()
        .find(|flag| flag.name == name || flag.aliases.contains(&name.as_str()))
}

/// The flag of this configuration field.
pub fn find_field(field: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.field == field)
}
