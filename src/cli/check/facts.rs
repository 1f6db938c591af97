//! What `check` looks at, gathered in one go. No judgement here.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_lite::future;

use crate::cli::CheckOptions;
use crate::os::clock::SystemClock;
use crate::os::pipe;
use crate::os::probe::{self, CgroupLayout, Place, Support};
use crate::os::process;
use crate::os::spawn::{Spawn, find_program};
use crate::runtime::network::cni::config::{self, Found};
use crate::runtime::network::{self, NetworkError, firewall};
use crate::world::Clock;

pub struct Facts {
    pub effective_uid: u32,
    pub kernel_release: String,
    pub cgroup_layout: CgroupLayout,
    pub cgroup_controllers: BTreeSet<String>,
    pub board_model: Option<String>,
    /// The kernel command line's file on boards that have one.
    pub cmdline_file: Option<&'static str>,
    pub overlayfs: Support,
    pub bridge: Support,
    pub veth: Support,
    pub missing_namespaces: Vec<&'static str>,
    pub seccomp_filters: bool,
    pub nft: Nft,
    pub runtime: Runtime,
    /// The directory, and what is in it.
    pub cni: Option<(PathBuf, Found)>,
    pub root: (PathBuf, Result<Place, String>),
    pub run: (PathBuf, Result<Place, String>),
}

pub enum Nft {
    /// What is to be said of firewalls that are in the way of pods.
    Works(Vec<String>),
    NoProgram,
    Failed(String),
}

pub enum Runtime {
    /// What was looked for.
    NotFound(String),
    Failed(PathBuf, String),
    /// All of `--version`.
    Found(PathBuf, String),
}

/// Tried in this order when none is named.
const RUNTIMES: [&str; 3] = ["runc", "crun", "youki"];

/// For a program that only has to print a few lines.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(5);
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;

pub fn gather(options: &CheckOptions) -> Facts {
    let (cgroup_layout, cgroup_controllers) = probe::cgroups();
    let place = |path: &Path| {
        let found = probe::place(path).map_err(|error| error.to_string());
        (path.to_owned(), found)
    };
    Facts {
        effective_uid: process::effective_uid(),
        kernel_release: probe::kernel_release(),
        cgroup_layout,
        cgroup_controllers,
        board_model: probe::board_model(),
        cmdline_file: ["/boot/firmware/cmdline.txt", "/boot/cmdline.txt"]
            .into_iter()
            .find(|file| Path::new(file).exists()),
        overlayfs: probe::overlayfs(),
        bridge: probe::link_kind("bridge"),
        veth: probe::link_kind("veth"),
        missing_namespaces: probe::missing_namespaces(),
        seccomp_filters: probe::seccomp_filters(),
        nft: nft(&options.root_dir),
        runtime: runtime(options.runtime.as_deref()),
        cni: options
            .cni_conf_dir
            .as_ref()
            .map(|path| (path.clone(), config::look(path))),
        root: place(&options.root_dir),
        run: place(&options.run_dir),
    }
}

fn nft(root: &Path) -> Nft {
    const PROGRAM: &str = "nft";
    match network::probe_nft(PROGRAM) {
        Ok(()) => {
            let bridge = network::bridge_name(&network::instance_id(root));
            let tables = firewall::obstacles(PROGRAM, &bridge).into_iter();
            let advice = tables.map(|table| firewall::advice(&table, &bridge));
            Nft::Works(advice.collect())
        }
        Err(NetworkError::NftMissing(_)) => Nft::NoProgram,
        Err(why) => Nft::Failed(why.to_string()),
    }
}

fn runtime(named: Option<&str>) -> Runtime {
    let program = match named {
        Some(path) if path.contains('/') => Some(PathBuf::from(path)).filter(|path| path.is_file()),
        Some(name) => find_program(name),
        None => RUNTIMES.iter().find_map(|name| find_program(name)),
    };
    let Some(program) = program else {
        return Runtime::NotFound(named.map_or(RUNTIMES.join(", "), str::to_owned));
    };
    match output(&program, &["--version"]) {
        Ok(version) => Runtime::Found(program, version),
        Err(why) => Runtime::Failed(program, why),
    }
}

/// Runs a program to its end. Errors: it failed, with what it said, or took too long.
fn output(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let pipe = pipe::pipe().map_err(text)?;
    let (read, write) = pipe.into_files();
    let also = write.try_clone().map_err(text)?;
    let child = Spawn::new(program)
        .args(arguments)
        .descriptor(1, write.into())
        .descriptor(2, also.into())
        .start()
        .map_err(text)?;
    let clock = SystemClock::new().map_err(text)?;
    let too_long = async {
        clock.sleep_until(clock.now() + PROGRAM_TIMEOUT).await;
        None
    };
    let finished = future::block_on(future::or(async { Some(child.wait().await) }, too_long));
    let Some(ended) = finished else {
        // Ours, and stuck: its end is of no interest.
        let _ = child.pidfd.signal(SIGKILL);
        return Err(format!("no answer within {} s", PROGRAM_TIMEOUT.as_secs()));
    };
    let ended = ended.map_err(text)?;
    let mut said = Vec::new();
    read.take(OUTPUT_BYTES_MAX)
        .read_to_end(&mut said)
        .map_err(text)?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    match ended.code() {
        0 => Ok(said),
        code => Err(format!(
            "exit code {code}: {}",
            said.lines().next().unwrap_or_default()
        )),
    }
}

/// signal(7)
const SIGKILL: i32 = 9;
