//! What `lowtide run` was asked for, as plain data: the command line over the file over defaults.
//!
//! Checks each value by itself and the few that depend on each other. Touches no file and no kernel.

mod eviction;
mod remote;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::flags::{self, Flag};
use super::value::{self, Cidr, Taint};
use crate::admission::{self, Selection};
use crate::apiserver::authn::Paths;
use crate::kubelet::pressure::thresholds::Policy;

pub use remote::{CloudProvider, MetadataSource, Register, RemoteOptions};

/// Everything the composition root needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct RunOptions {
    /// `None`: no manifest directory (an empty path was given).
    pub pod_manifest_path: Option<PathBuf>,
    pub manifest_url: Option<String>,
    /// In the order given; a name may repeat.
    pub manifest_url_headers: Vec<(String, String)>,
    pub file_check_period: Duration,
    pub http_check_period: Duration,
    /// ROOT
    pub root_dir: PathBuf,
    /// RUN
    pub run_dir: PathBuf,
    pub pod_logs_dir: PathBuf,
    pub image_dir: PathBuf,
    /// Mirrors, extra CAs and plain HTTP of registries.
    pub registry_config: Option<PathBuf>,
    /// Name or path of the OCI runtime; `None`: look for one.
    pub runtime: Option<String>,
    /// Lower case; `None`: the host's name.
    pub hostname_override: Option<String>,
    /// At most one of each family; empty: the host's.
    pub node_ips: Vec<IpAddr>,
    /// `--node-ip=::`: of the host's addresses the one of IPv6, if there is one.
    pub prefers_ipv6: bool,
    pub node_labels: Vec<(String, String)>,
    pub register_with_taints: Vec<Taint>,
    pub pod_cidr: Cidr,
    /// `None`: the built-in pod network.
    pub cni_conf_dir: Option<PathBuf>,
    /// `None`: pods get no resolver configuration from the host.
    pub resolv_conf: Option<PathBuf>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: Option<String>,
    /// Absolute cgroup path.
    pub cgroup_root: String,
    pub pods_max: u32,
    /// `None`: no limit.
    pub pod_pids_max: Option<u64>,
    pub seccomp_default: SeccompDefault,
    /// Names or prefixes with `*` at the end.
    pub allowed_unsafe_sysctls: Vec<String>,
    pub container_log_bytes_max: u64,
    /// At least 2.
    pub container_log_files_max: u32,
    pub image_gc_high_percent: u8,
    /// Below `image_gc_high_percent`.
    pub image_gc_low_percent: u8,
    pub image_gc_age_min: Duration,
    pub eviction: Policy,
    pub node_status_update_period: Duration,
    /// `None`: the API is served on RUN/api.sock only.
    pub secure: Option<SecureServing>,
    /// `None`: the kubelet's endpoints are not served.
    pub endpoints: Option<SecureServing>,
    /// The cluster signs what they show.
    pub rotate_server_certificates: bool,
    pub authentication: Paths,
    /// Requests without credentials get in, as `system:anonymous`.
    pub anonymous: bool,
    /// In order; none: only `system:masters` get in.
    pub authorization_modes: Vec<AuthorizationMode>,
    /// Given if and only if mode ABAC is.
    pub authorization_policy_file: Option<PathBuf>,
    pub encryption: SealingKeys,
    pub admission: Selection,
    /// `None`: the node stands alone.
    pub remote: Option<RemoteOptions>,
    /// Says where the machine is, for labels and addresses of the Node.
    pub metadata: Option<MetadataSource>,
    pub on_exit: OnExit,
}

/// Where the keys come from that Secrets are sealed with on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealingKeys {
    /// The node's own.
    Own,
    File(PathBuf),
    /// `--encryption-key-file=none`: Secrets lie in clear.
    Off,
}

/// Where something is served over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecureServing {
    pub address: SocketAddr,
    /// Somebody asked for it: a node that cannot serve there shall not start.
    pub required: bool,
}

/// A mode that exists here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationMode {
    AlwaysAllow,
    AlwaysDeny,
    Abac,
    Node,
}

/// The seccomp profile of a pod that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeccompDefault {
    Unconfined,
    RuntimeDefault,
}

/// What SIGTERM does to pods. (SIGPWR always stops them.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    LeavePods,
    /// `--exit-stops-pods`
    StopPods,
}

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    CommandLine,
    /// File, line from 1, field.
    File {
        path: String,
        line: u32,
        field: String,
    },
}

/// One value as it was given.
#[derive(Clone)]
pub struct Setting {
    pub flag: &'static Flag,
    pub text: String,
    pub place: Place,
}

/// A value that cannot be used: where it is, and what would be legal. One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue(pub String);

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadValue {}

impl Setting {
    fn bad(&self, why: &str) -> BadValue {
        match &self.place {
            Place::CommandLine => BadValue(format!("--{}: {why}", self.flag.name)),
            Place::File { path, line, field } => BadValue(format!("{path}:{line}: {field}: {why}")),
        }
    }
}

/// The settings that count: of each flag those of the command line, else those of the file.
struct Given(Vec<Setting>);

impl Given {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Setting> {
        self.0
            .iter()
            .filter(move |setting| setting.flag.name == name)
    }

    /// The last one wins, as in upstream's flag library.
    fn last<'a>(&'a self, name: &'a str) -> Option<&'a Setting> {
        debug_assert!(flags::find(name).is_some(), "no flag {name}");
        self.all(name).last()
    }

    fn parse<T>(
        &self,
        name: &str,
        default: T,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, BadValue> {
        match self.last(name) {
            Some(setting) => parse(&setting.text).map_err(|why| setting.bad(&why)),
            None => Ok(default),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.last(name)
            .map(|setting| setting.text.clone())
            .filter(|text| !text.is_empty())
    }

    /// Absolute, since shims and the runtime work in directories of their own.
    fn directory(&self, name: &str, default: &str) -> Result<PathBuf, BadValue> {
        self.parse(name, PathBuf::from(default), |text| match text {
            "" => Err("must not be empty".to_owned()),
            _ => std::path::absolute(text).map_err(|error| error.to_string()),
        })
    }

    fn list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, BadValue> {
        let mut list = Vec::new();
        for setting in self.all(name) {
            for item in value::items(&setting.text) {
                list.push(parse(item).map_err(|why| setting.bad(&why))?);
            }
        }
        Ok(list)
    }

    /// Off unless it is given.
    fn switch(&self, name: &str) -> Result<bool, BadValue> {
        self.parse(name, false, value::boolean)
    }

    fn number(&self, name: &str, default: i64, least: i64, most: i64) -> Result<i64, BadValue> {
        self.parse(name, default, |text| value::integer(text, least, most))
    }
}

impl RunOptions {
    /// Merges and checks. Errors: the first bad value, or a value that asks for a missing feature.
    pub fn resolve(command_line: Vec<Setting>, file: Vec<Setting>) -> Result<RunOptions, BadValue> {
        let mut given = command_line;
        let overridden: Vec<&str> = given.iter().map(|setting| setting.flag.name).collect();
        let mut of_file = file;
        of_file.retain(|setting| !overridden.contains(&setting.flag.name));
        given.extend(of_file);
        let given = Given(given);
        read(&given)
    }
}

fn read(given: &Given) -> Result<RunOptions, BadValue> {
    let root_dir = given.directory("root-dir", "/var/lib/lowtide")?;
    let preload = root_dir.join("preload");
    let (image_gc_high_percent, image_gc_low_percent) = image_thresholds(given)?;
    let (node_ips, prefers_ipv6) = node_ips(given)?;
    Ok(RunOptions {
        pod_manifest_path: manifest_path(given)?,
        manifest_url: manifest_url(given)?,
        manifest_url_headers: given.list("manifest-url-header", value::header)?,
        file_check_period: given.parse("file-check-frequency", seconds(20), value::period)?,
        http_check_period: given.parse("http-check-frequency", seconds(20), value::period)?,
        run_dir: given.directory("run-dir", "/run/lowtide")?,
        pod_logs_dir: given.directory("pod-logs-dir", "/var/log/pods")?,
        image_dir: given.text("image-dir").map_or(preload, PathBuf::from),
        root_dir,
        registry_config: given.text("registry-config").map(PathBuf::from),
        runtime: given.text("runtime").filter(|name| name != "auto"),
        hostname_override: given.parse("hostname-override", None, hostname)?,
        node_ips,
        prefers_ipv6,
        node_labels: node_labels(given)?,
        register_with_taints: given.list("register-with-taints", value::taint)?,
        pod_cidr: given.parse("pod-cidr", DEFAULT_POD_CIDR, value::cidr)?,
        cni_conf_dir: given.parse("cni-conf-dir", None, optional_path)?,
        resolv_conf: given.parse(
            "resolv-conf",
            Some("/etc/resolv.conf".into()),
            optional_path,
        )?,
        cluster_dns: given.list("cluster-dns", value::ip)?,
        cluster_domain: given.text("cluster-domain"),
        cgroup_root: given.parse("cgroup-root", "/".to_owned(), cgroup_root)?,
        pods_max: given.number("max-pods", 110, 0, 10_000)? as u32,
        pod_pids_max: u64::try_from(given.number("pod-max-pids", -1, -1, 1 << 22)?)
            .ok()
            .filter(|pids| *pids > 0),
        seccomp_default: match given.parse("seccomp-default", false, value::boolean)? {
            true => SeccompDefault::RuntimeDefault,
            false => SeccompDefault::Unconfined,
        },
        allowed_unsafe_sysctls: given.list("allowed-unsafe-sysctls", |name| Ok(name.to_owned()))?,
        container_log_bytes_max: given.parse("container-log-max-size", 10 << 20, log_size)?,
        container_log_files_max: given.number("container-log-max-files", 5, 2, 1000)? as u32,
        eviction: eviction::policy(given)?,
        image_gc_high_percent,
        image_gc_low_percent,
        image_gc_age_min: given.parse(
            "minimum-image-ttl-duration",
            seconds(120),
            value::duration,
        )?,
        node_status_update_period: given.parse(
            "node-status-update-frequency",
            seconds(10),
            value::period,
        )?,
        secure: secure(given)?,
        endpoints: endpoints(given)?,
        rotate_server_certificates: given.switch("rotate-server-certificates")?,
        authentication: authentication(given),
        anonymous: given.switch("anonymous-auth")?,
        authorization_modes: given.list("authorization-mode", authorization_mode)?,
        authorization_policy_file: policy_file(given)?,
        encryption: encryption(given),
        admission: admission(given)?,
        remote: remote::remote(given)?,
        metadata: remote::metadata(given)?,
        on_exit: on_exit(given)?,
    })
}

fn on_exit(given: &Given) -> Result<OnExit, BadValue> {
    Ok(match given.switch("exit-stops-pods")? {
        true => OnExit::StopPods,
        false => OnExit::LeavePods,
    })
}

fn manifest_path(given: &Given) -> Result<Option<PathBuf>, BadValue> {
    let default = Some(PathBuf::from("/etc/lowtide/manifests"));
    given.parse("pod-manifest-path", default, optional_path)
}

/// The empty text is none.
fn optional_path(text: &str) -> Result<Option<PathBuf>, String> {
    Ok(Some(PathBuf::from(text)).filter(|path| !path.as_os_str().is_empty()))
}

/// As kube-apiserver has it.
const DEFAULT_SECURE_PORT: u16 = 6443;

/// As kubelet has it.
const DEFAULT_ENDPOINTS_PORT: u16 = 10250;

const DEFAULT_POD_CIDR: Cidr = Cidr {
    address: IpAddr::V4(Ipv4Addr::new(10, 88, 0, 0)),
    prefix_bits: 24,
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn secure(given: &Given) -> Result<Option<SecureServing>, BadValue> {
    let flags = ["bind-address", "secure-port"];
    serving(given, flags, Ipv4Addr::LOCALHOST, DEFAULT_SECURE_PORT)
}

/// The kubelet's endpoints: for a cluster, so only where there is one.
fn endpoints(given: &Given) -> Result<Option<SecureServing>, BadValue> {
    let flags = ["address", "port"];
    let asked = serving(given, flags, Ipv4Addr::UNSPECIFIED, DEFAULT_ENDPOINTS_PORT)?;
    let joined = remote::remote(given)?.is_some();
    match given.last("port") {
        Some(port) if asked.is_some() && !joined => {
            Err(port
                .bad("needs a cluster: give --kubeconfig or --api-server, or leave the flag out"))
        }
        _ => Ok(asked.filter(|_| joined)),
    }
}

fn serving(
    given: &Given,
    flags: [&str; 2],
    ip: Ipv4Addr,
    port: u16,
) -> Result<Option<SecureServing>, BadValue> {
    let [address, number] = flags;
    let ip = given.parse(address, ip.into(), value::ip)?;
    let port = given.number(number, port.into(), 0, 65_535)? as u16;
    Ok((port != 0).then(|| SecureServing {
        address: SocketAddr::new(ip, port),
        required: flags.iter().any(|flag| given.last(flag).is_some()),
    }))
}

fn authentication(given: &Given) -> Paths {
    let file = |name: &str| given.text(name).map(PathBuf::from);
    Paths {
        client_ca: file("client-ca-file"),
        tokens: file("token-auth-file"),
        passwords: file("basic-auth-file"),
    }
}

fn authorization_mode(name: &str) -> Result<AuthorizationMode, String> {
    match name {
        "AlwaysAllow" => Ok(AuthorizationMode::AlwaysAllow),
        "AlwaysDeny" => Ok(AuthorizationMode::AlwaysDeny),
        "ABAC" => Ok(AuthorizationMode::Abac),
        "Node" => Ok(AuthorizationMode::Node),
        "RBAC" | "Webhook" => Err(format!("{name} is not available in this version; use ABAC")),
        _ => Err(format!(
            "{name:?} must be one of AlwaysAllow, AlwaysDeny, ABAC, Node"
        )),
    }
}

fn policy_file(given: &Given) -> Result<Option<PathBuf>, BadValue> {
    let file = given.text("authorization-policy-file").map(PathBuf::from);
    let modes = given.list("authorization-mode", authorization_mode)?;
    let abac = modes.contains(&AuthorizationMode::Abac);
    let (setting, why) = match (&file, abac) {
        (None, true) => (
            given.last("authorization-mode"),
            "ABAC needs --authorization-policy-file",
        ),
        (Some(_), false) => (
            given.last("authorization-policy-file"),
            "is read by --authorization-mode=ABAC only",
        ),
        _ => return Ok(file),
    };
    Err(setting.map_or(BadValue(why.to_owned()), |setting| setting.bad(why)))
}

fn encryption(given: &Given) -> SealingKeys {
    match given.text("encryption-key-file") {
        None => SealingKeys::Own,
        Some(off) if off == "none" => SealingKeys::Off,
        Some(path) => SealingKeys::File(path.into()),
    }
}

fn admission(given: &Given) -> Result<Selection, BadValue> {
    let known = |name: &str| value::one_of(name, &admission::names()).map(|_| name.to_owned());
    let exactly = given.list("admission-control", known)?;
    let selection = Selection {
        exactly: given.last("admission-control").map(|_| exactly),
        enable: given.list("enable-admission-plugins", known)?,
        disable: given.list("disable-admission-plugins", known)?,
    };
    let partly = given
        .last("enable-admission-plugins")
        .or(given.last("disable-admission-plugins"));
    let both = selection
        .enable
        .iter()
        .find(|name| selection.disable.contains(name));
    match partly {
        Some(setting) if selection.exactly.is_some() => Err(setting.bad(
            "admission-control and enable-admission-plugins/disable-admission-plugins flags are \
             mutually exclusive",
        )),
        Some(setting) if both.is_some() => Err(setting.bad(&format!(
            "{} is both enabled and disabled",
            both.map_or("", String::as_str)
        ))),
        _ => Ok(selection),
    }
}

fn manifest_url(given: &Given) -> Result<Option<String>, BadValue> {
    given.parse("manifest-url", None, |text| {
        if text.is_empty() {
            return Ok(None);
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        value::one_of(uri.scheme_str().unwrap_or_default(), &["http", "https"])?;
        Ok(Some(text.to_owned()))
    })
}

/// In a cluster, those that it takes from a node: with another one it would take none of the Node.
fn node_labels(given: &Given) -> Result<Vec<(String, String)>, BadValue> {
    let joined = remote::remote(given)?.is_some();
    given.list("node-labels", |text| {
        let label = value::label(text)?;
        let problem = admission::own_label_problem(&label.0).filter(|_| joined);
        problem.map_or(Ok(label), Err)
    })
}

/// The second: no address, but the family IPv6 is asked for.
fn node_ips(given: &Given) -> Result<(Vec<IpAddr>, bool), BadValue> {
    let mut ips = given.list("node-ip", value::node_ip)?;
    let v4 = ips.iter().filter(|ip| ip.is_ipv4()).count();
    match given.last("node-ip") {
        Some(setting) if v4 > 1 || ips.len() - v4 > 1 => {
            Err(setting.bad("more than one address of a family"))
        }
        Some(setting) if ips.len() > 1 && ips.iter().any(IpAddr::is_unspecified) => {
            Err(setting.bad("0.0.0.0 and :: ask for a family, and go with no other"))
        }
        _ => {
            let any = ips.iter().any(IpAddr::is_unspecified);
            let prefers_ipv6 = any && v4 == 0;
            ips.retain(|ip| !ip.is_unspecified());
            Ok((ips, prefers_ipv6))
        }
    }
}

/// A node's name: an RFC 1123 subdomain once in lower case.
fn hostname(text: &str) -> Result<Option<String>, String> {
    let name = text.trim().to_lowercase();
    if name.is_empty() {
        return Ok(None);
    }
    let legal = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    match name.len() <= 253 && name.split('.').all(legal) {
        true => Ok(Some(name)),
        false => Err(format!(
            "{text:?} is not a host name (letters, digits, - and .)"
        )),
    }
}

fn cgroup_root(text: &str) -> Result<String, String> {
    let unclear = text.split('/').any(|part| part == ".." || part == ".");
    match text {
        "" => Ok("/".to_owned()),
        _ if unclear || !text.starts_with('/') => Err(format!(
            "{text:?} is not an absolute cgroup path such as /pods"
        )),
        _ => Ok(text.to_owned()),
    }
}

fn log_size(text: &str) -> Result<u64, String> {
    match value::bytes(text)? {
        0 => Err("must be more than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

fn image_thresholds(given: &Given) -> Result<(u8, u8), BadValue> {
    let high = given.number("image-gc-high-threshold", 85, 0, 100)?;
    let low = given.number("image-gc-low-threshold", 80, 0, 100)?;
    let setting = given
        .last("image-gc-low-threshold")
        .or(given.last("image-gc-high-threshold"));
    match setting {
        Some(setting) if low >= high => Err(setting.bad(&format!(
            "low threshold {low} must be below high threshold {high}"
        ))),
        _ => Ok((high as u8, low as u8)),
    }
}
