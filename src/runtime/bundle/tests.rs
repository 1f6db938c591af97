//! Golden configurations and tables for the bundle. `UPDATE=1` rewrites the golden files.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::world::{
    Capabilities, CgroupResources, Dns, NamespaceMode, Namespaces, PodCgroup, ProcMount, QosClass,
    Seccomp, Security, TerminationMessagePolicy, Uid,
};

pub(super) fn plain_security() -> Security {
    Security {
        run_as_user: None,
        run_as_group: None,
        run_as_non_root: false,
        supplemental_groups: Vec::new(),
        strict_groups: false,
        fs_group: None,
        privileged: false,
        capabilities: Capabilities::default(),
        no_new_privileges: false,
        read_only_root: false,
        proc_mount: ProcMount::Default,
        seccomp: Seccomp::Unconfined,
    }
}

/// Owned parts of an input, so that a case changes what it is about.
struct Case {
    container: ContainerConfig,
    sandbox: SandboxConfig,
    image: ImageConfig,
    user: ResolvedUser,
    host: HostFacts,
    paths: BundlePaths,
    mounts: Vec<ResolvedMount>,
    seccomp_file: Option<String>,
}

impl Case {
    fn new(change: impl FnOnce(&mut Case)) -> Case {
        let mut case = Case {
            container: container(),
            sandbox: sandbox(),
            image: ImageConfig {
                env: vec!["LANG=C".to_owned(), "PATH=/image/bin".to_owned()],
                entrypoint: vec!["/entry".to_owned()],
                cmd: vec!["serve".to_owned()],
                ..ImageConfig::default()
            },
            user: ResolvedUser::default(),
            host: HostFacts {
                architecture: Architecture::Aarch64,
                cgroup: CgroupVersion::V2,
                memory: MemoryController::WithSwap,
                capabilities: CapabilitySet::from_bits(0x1ff_ffff_ffff),
                oom_score_adj_inherited: -999,
                oom_lowering: OomLowering::Allowed,
                throttling_cpus: vec![0, 1],
                devices: Vec::new(),
            },
            paths: BundlePaths {
                rootfs: "/run/pod/rootfs".into(),
                hosts: Some("/pod/etc-hosts".into()),
                hostname: Some("/pod/hostname".into()),
                resolv_conf: Some("/pod/resolv.conf".into()),
                shm: "/pod/shm".into(),
                termination_log: Some("/pod/containers/web/0a1b2c3d".into()),
            },
            mounts: Vec::new(),
            seccomp_file: None,
        };
        change(&mut case);
        case
    }

    fn run(&self) -> Result<Bundle, BundleError> {
        oci_config(&BundleInput {
            container: &self.container,
            sandbox: &self.sandbox,
            image: &self.image,
            user: &self.user,
            host: &self.host,
            paths: &self.paths,
            mounts: &self.mounts,
            pause_pid: 4711,
            target_pid: None,
            cgroups_path: "/kubepods/burstable/pod1234/abcd",
            seccomp_file: self.seccomp_file.as_deref(),
        })
    }

    fn config(&self) -> Value {
        self.run().unwrap_or_else(|error| panic!("{error}")).config
    }
}

fn container() -> ContainerConfig {
    ContainerConfig {
        uid: Uid::new("1234").expect("a uid"),
        pod_name: "web".to_owned(),
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        attempt: 0,
        hash: "1".to_owned(),
        image: "web:1".to_owned(),
        image_id: "sha256:00".to_owned(),
        image_shown: String::new(),
        command: Vec::new(),
        args: Vec::new(),
        working_dir: None,
        env: vec![("A".to_owned(), "1".to_owned())],
        mounts: Vec::new(),
        security: plain_security(),
        resources: CgroupResources::default(),
        oom_score_adj: 1000,
        stdin: false,
        stdin_once: false,
        tty: false,
        target: None,
        termination_message_path: "/dev/termination-log".to_owned(),
        termination_message_policy: TerminationMessagePolicy::File,
    }
}

fn sandbox() -> SandboxConfig {
    SandboxConfig {
        uid: Uid::new("1234").expect("a uid"),
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        attempt: 0,
        hostname: "web".to_owned(),
        domain: None,
        namespaces: Namespaces {
            network: NamespaceMode::Pod,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Container,
        },
        ports: Vec::new(),
        dns: Dns::default(),
        host_aliases: Vec::new(),
        sysctls: Vec::new(),
        cgroup: PodCgroup {
            qos: QosClass::Burstable,
            resources: CgroupResources::default(),
        },
    }
}

fn bind(path: &str) -> ResolvedMount {
    ResolvedMount {
        source: PathBuf::from("/volumes/v"),
        container_path: path.to_owned(),
        access: Access::ReadWrite,
        propagation: Propagation::Private,
    }
}

/// Compares with the reviewed file, or rewrites it if `UPDATE` is set.
fn check_golden(name: &str, config: &Value) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime/bundle/golden");
    let path = directory.join(format!("{name}.json"));
    let mut text = serde_json::to_string_pretty(config).expect("serializes");
    text.push('\n');
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(&directory).expect("make golden directory");
        std::fs::write(&path, &text).expect("write golden file");
    }
    let reviewed = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run with UPDATE=1", path.display()));
    assert_eq!(
        text, reviewed,
        "{name}: run with UPDATE=1 and review the difference"
    );
}

#[test]
fn a_plain_container_matches_its_golden_file() {
    check_golden("plain", &Case::new(|_| ()).config());
}

#[test]
fn a_hardened_container_matches_its_golden_file() {
    let case = Case::new(|case| {
        let security = &mut case.container.security;
        security.no_new_privileges = true;
        security.read_only_root = true;
        security.seccomp = Seccomp::RuntimeDefault;
        security.capabilities.drop = vec!["ALL".to_owned()];
        security.capabilities.add = vec!["NET_BIND_SERVICE".to_owned()];
        case.user = ResolvedUser {
            uid: 1000,
            gid: 1001,
            additional_gids: vec![2000],
            home: Some("/home/app".to_owned()),
        };
        case.container.resources = CgroupResources {
            cpu_shares: Some(256),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_bytes_max: Some(64 << 20),
            pids_max: Some(100),
        };
        case.container.oom_score_adj = 968;
        let mut config = bind("/etc/app");
        config.access = Access::RecursiveReadOnly;
        case.mounts = vec![bind("/data/inner"), bind("/data"), config];
    });
    check_golden("hardened", &case.config());
}

#[test]
fn a_privileged_container_matches_its_golden_file() {
    let device = |path: &str, kind, major, minor| HostDevice {
        path: path.to_owned(),
        kind,
        major,
        minor,
        mode: 0o660,
        uid: 0,
        gid: 6,
    };
    let case = Case::new(|case| {
        case.container.security.privileged = true;
        case.container.security.seccomp = Seccomp::RuntimeDefault;
        case.container.tty = true;
        case.host.cgroup = CgroupVersion::V1;
        case.host.devices = vec![
            device("/dev/null", DeviceKind::Char, 1, 3),
            device("/dev/pts/0", DeviceKind::Char, 136, 0),
            device("/dev/mmcblk0", DeviceKind::Block, 179, 0),
        ];
        case.sandbox.namespaces = Namespaces {
            network: NamespaceMode::Host,
            ipc: NamespaceMode::Host,
            pid: NamespaceMode::Host,
        };
        let mut shared = bind("/mnt");
        shared.propagation = Propagation::Bidirectional;
        case.mounts = vec![shared];
    });
    check_golden("privileged", &case.config());
}

#[test]
fn command_and_args_replace_the_images_as_documented() {
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    for (command, args, expected) in [
        (&[][..], &[][..], json!(["/entry", "serve"])),
        (&["/bin/sh"], &[], json!(["/bin/sh"])),
        (&[], &["-v"], json!(["/entry", "-v"])),
        (&["/bin/sh"], &["-c", "x"], json!(["/bin/sh", "-c", "x"])),
    ] {
        let case = Case::new(|case| {
            case.container.command = words(command);
            case.container.args = words(args);
        });
        assert_eq!(case.config()["process"]["args"], expected);
    }
}

#[test]
fn an_image_without_command_is_refused() {
    let case = Case::new(|case| case.image = ImageConfig::default());
    assert_eq!(
        case.run(),
        Err(BundleError::Image("no command specified".to_owned()))
    );
}

#[test]
fn the_pods_environment_wins_over_the_images_and_defaults() {
    let case = Case::new(|case| {
        case.container.env = [("HOSTNAME", "mine"), ("A", "1"), ("A", "2"), ("LANG", "de")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
    });
    assert_eq!(
        case.config()["process"]["env"],
        json!(["PATH=/image/bin", "HOSTNAME=mine", "LANG=de", "A=2"])
    );
}

#[test]
fn working_directories_never_lie_in_proc() {
    for (of_pod, of_image, expected) in [
        (None, "", Some("/")),
        (None, "/srv", Some("/srv")),
        (None, "srv", Some("/srv")),
        (Some("/a/../b/./c/"), "/srv", Some("/b/c")),
        (Some("/../.."), "", Some("/")),
        (Some("relative"), "", None),
        (Some("/proc/self/fd/8"), "", None),
        (Some("/x/../proc/self/fd/8"), "", None),
        (Some("/proc/1/cwd"), "", None),
        (None, "/proc/self/fd/8", None),
        (None, "//proc/./self", None),
    ] {
        let case = Case::new(|case| {
            case.container.working_dir = of_pod.map(str::to_owned);
            case.image.working_dir = of_image.to_owned();
        });
        let cwd = case.run().ok().map(|b| b.config["process"]["cwd"].clone());
        assert_eq!(cwd, expected.map(Value::from), "{of_pod:?} {of_image}");
    }
}

#[test]
fn capabilities_are_dropped_added_and_dropped_in_this_order() {
    for (add, drop, present, absent) in [
        (
            &[][..],
            &[][..],
            &["CHOWN", "MKNOD"][..],
            &["SYS_ADMIN", "NET_ADMIN"][..],
        ),
        (&["net_admin"], &[], &["NET_ADMIN", "CHOWN"], &[]),
        (&["CAP_SYS_TIME"], &["ALL"], &["SYS_TIME"], &["CHOWN"]),
        (&["ALL"], &["SYS_ADMIN"], &["SYS_MODULE"], &["SYS_ADMIN"]),
        (&[], &["KILL"], &["CHOWN"], &["KILL"]),
        // The host's own bounding set lacks these two.
        (
            &["ALL", "SYS_RESOURCE"],
            &[],
            &["SYS_ADMIN"],
            &["SYS_RESOURCE", "BPF"],
        ),
    ] {
        let case = Case::new(|case| {
            case.host.capabilities =
                CapabilitySet::from_bits(0x1ff_ffff_ffff & !(1 << 24 | 1 << 39));
            case.container.security.capabilities = Capabilities {
                add: add.iter().map(|s| (*s).to_owned()).collect(),
                drop: drop.iter().map(|s| (*s).to_owned()).collect(),
            };
        });
        let sets = &case.config()["process"]["capabilities"];
        let holds = |set: &str, name: &&str| {
            let all = sets[set].as_array().expect("an array");
            all.contains(&json!(format!("CAP_{name}")))
        };
        for set in ["bounding", "effective", "permitted"] {
            assert!(
                present.iter().all(|name| holds(set, name)),
                "{add:?} {drop:?} {set}"
            );
            assert!(
                !absent.iter().any(|name| holds(set, name)),
                "{add:?} {drop:?} {set}"
            );
        }
        assert_eq!(
            (&sets["inheritable"], &sets["ambient"]),
            (&json!([]), &json!([]))
        );
    }
}

#[test]
fn an_unknown_capability_names_its_field() {
    let case = Case::new(|case| case.container.security.capabilities.add = vec!["FLY".to_owned()]);
    let error = case.run().expect_err("no such capability").to_string();
    assert_eq!(
        error,
        "securityContext.capabilities.add: unknown capability \"FLY\""
    );
}

#[test]
fn an_oom_score_below_the_allowed_is_clamped_and_reported() {
    for (lowering, inherited, wanted, given) in [
        (OomLowering::Allowed, 0, -997, None),
        (OomLowering::Forbidden, 0, -997, Some(0)),
        (OomLowering::Forbidden, -500, -997, Some(-500)),
        (OomLowering::Forbidden, 200, 3, Some(200)),
        (OomLowering::Forbidden, 0, 1000, None),
    ] {
        let bundle = Case::new(|case| {
            case.host.oom_lowering = lowering;
            case.host.oom_score_adj_inherited = inherited;
            case.container.oom_score_adj = wanted;
        })
        .run()
        .expect("a bundle");
        assert_eq!(
            bundle.config["process"]["oomScoreAdj"],
            given.unwrap_or(wanted)
        );
        assert_eq!(
            bundle.clamped,
            given.map(|given| OomClamped { wanted, given })
        );
    }
}

#[test]
fn mount_paths_that_a_runtime_refuses_are_named() {
    for path in [
        "/",
        "/proc",
        "/proc/",
        "/proc/sys/kernel",
        "/x/../proc/1",
        "data",
        "",
    ] {
        let error = Case::new(|case| case.mounts = vec![bind(path)]).run();
        assert!(
            matches!(&error, Err(BundleError::Config(text)) if text.contains("mountPath")),
            "{path:?}: {error:?}"
        );
    }
    for path in [
        "/proc/cpuinfo",
        "/processes",
        "/host/proc",
        "/dev/snd",
        "/sys/fs/bpf",
    ] {
        assert!(
            Case::new(|case| case.mounts = vec![bind(path)])
                .run()
                .is_ok(),
            "{path}"
        );
    }
}

#[test]
fn a_volume_takes_the_place_of_a_default_mount() {
    for path in [
        "/dev/shm",
        "/etc/hosts",
        "/etc/resolv.conf/",
        "/dev/termination-log",
    ] {
        let config = Case::new(|case| case.mounts = vec![bind(path)]).config();
        let clean = path.trim_end_matches('/');
        let mounts = config["mounts"].as_array().expect("mounts");
        let sources: Vec<&Value> = mounts
            .iter()
            .filter(|m| m["destination"] == clean)
            .map(|m| &m["source"])
            .collect();
        assert_eq!(sources, [&json!("/volumes/v")], "{path}");
    }
}

#[test]
fn a_volume_covers_no_file_system_or_file_of_the_pod() {
    let paths = |propagation| {
        let config = Case::new(|case| {
            let mut dev = bind("/dev");
            dev.propagation = propagation;
            case.mounts = vec![bind("/dev/snd/seq"), bind("/etc/app"), dev, bind("/etc")];
        });
        let config = config.config();
        let mounts = config["mounts"].as_array().expect("mounts").iter();
        let paths: Vec<String> = mounts
            .map(|mount| mount["destination"].as_str().expect("a path").to_owned())
            .collect();
        paths
    };
    let etc = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
    let dev = ["/dev/pts", "/dev/mqueue", "/dev/shm"];
    let top = ["/proc", "/sys", "/dev", "/etc"];
    let deep = ["/sys/fs/cgroup", "/dev/snd/seq"];
    let own = [
        &top[..],
        &dev,
        &etc,
        &["/dev/termination-log", "/etc/app"],
        &deep,
    ];
    assert_eq!(paths(Propagation::HostToContainer), own.concat());
    // The host would see a devpts over its own.
    let shared = [&top[..], &etc, &["/etc/app"], &deep];
    assert_eq!(paths(Propagation::Bidirectional), shared.concat());
}

#[test]
fn a_localhost_profile_must_be_a_named_json_profile() {
    for (name, text, expected) in [
        ("", None, "must name a file"),
        ("", Some("{}"), "must name a file"),
        ("p.json", None, "cannot load seccomp profile"),
        ("p.json", Some("{"), "not valid JSON"),
        ("p.json", Some("[]"), "has no defaultAction"),
        ("p.json", Some("{\"defaultAction\":\"SCMP_ACT_LOG\"}"), ""),
    ] {
        let outcome = Case::new(|case| {
            case.container.security.seccomp = Seccomp::Localhost(name.to_owned());
            case.seccomp_file = text.map(str::to_owned);
        })
        .run();
        match outcome {
            Ok(bundle) => {
                assert_eq!(expected, "");
                assert_eq!(
                    bundle.config["linux"]["seccomp"]["defaultAction"],
                    "SCMP_ACT_LOG"
                );
            }
            Err(error) => {
                assert!(!expected.is_empty(), "{error}");
                assert!(error.to_string().contains(expected), "{error}");
            }
        }
    }
}

#[test]
fn the_default_profile_opens_with_capabilities_only() {
    let profile = |add: &str| {
        let config = Case::new(|case| {
            case.container.security.seccomp = Seccomp::RuntimeDefault;
            case.container.security.capabilities.add = vec![add.to_owned()];
        })
        .config();
        config["linux"]["seccomp"].to_string()
    };
    let (plain, admin) = (profile("CHOWN"), profile("SYS_ADMIN"));
    assert!(!plain.contains("\"mount\"") && admin.contains("\"mount\""));
    assert!(plain.contains("\"errnoRet\":38") && !admin.contains("\"errnoRet\":38"));
    assert!(plain.contains("SCMP_ARCH_ARM\"") && plain.contains("\"set_tls\""));
    assert!(!plain.contains("io_uring") && !plain.contains("\"keyctl\""));
}

#[test]
fn procfs_is_unmasked_only_on_request() {
    let config =
        Case::new(|case| case.container.security.proc_mount = ProcMount::Unmasked).config();
    assert!(config["linux"].get("maskedPaths").is_none());
    assert!(config["linux"].get("readonlyPaths").is_none());
}

#[test]
fn memory_limits_ask_only_for_what_the_kernel_has() {
    for (memory, expected, unlimited) in [
        (
            MemoryController::WithSwap,
            json!({"limit": 9, "swap": 9}),
            None,
        ),
        (MemoryController::WithoutSwap, json!({"limit": 9}), None),
        (MemoryController::Absent, Value::Null, Some(9)),
    ] {
        let bundle = Case::new(|case| {
            case.host.memory = memory;
            case.container.resources.memory_bytes_max = Some(9);
        })
        .run()
        .expect("a bundle");
        let resources = &bundle.config["linux"]["resources"];
        assert_eq!(resources["memory"], expected);
        assert_eq!(bundle.memory_unlimited, unlimited);
        assert_eq!(resources.get("unified").is_none(), unlimited.is_some());
    }
}
