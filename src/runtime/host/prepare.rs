//! From a container's configuration to a bundle on disk: root file system, user, config.json.
//!
//! All of it blocking, on the blocking pool: image layers and the writable layer are on the card.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::runtime::bundle::{
    self, BundleError, BundleInput, BundlePaths, HostFacts, OomClamped, ResolvedMount,
    rootfs as image_root,
};
use crate::runtime::sandbox::record::{ContainerRecord, SandboxRecord};
use crate::runtime::volumes::{self, MountError};
use crate::world::{ContainerConfig, ContainerUser, NamespaceMode, RuntimeError, Seccomp};

use super::{ImageParts, Instance, Layout, clean, facts, of_io, rootfs};

/// A Localhost profile is some ten kilobytes.
const SECCOMP_BYTES_MAX: u64 = 1 << 20;
/// Log directories are for collectors of any user to read, the top one for root and its group.
/// Source: Kubernetes pkg/kubelet.
const LOG_TOP_MODE: u32 = 0o750;
const LOG_MODE: u32 = 0o755;
/// Any user of a container may write its last words.
const TERMINATION_LOG_MODE: u32 = 0o666;

/// What a bundle is made from.
pub struct Preparation {
    pub layout: Arc<Layout>,
    pub config: Arc<ContainerConfig>,
    pub sandbox: SandboxRecord,
    pub pause_pid: u32,
    pub target_pid: Option<u32>,
    pub record: ContainerRecord,
    pub image: ImageParts,
    pub facts: HostFacts,
}

/// What is known once a bundle is made.
pub struct Prepared {
    pub user: ContainerUser,
    pub clamped: Option<OomClamped>,
}

impl Preparation {
    /// Mounts the root, writes `config.json`, makes the log directory and its link.
    pub fn run(&self) -> Result<Prepared, RuntimeError> {
        let instance = self.instance();
        let bundle = self.layout.bundle(instance);
        let root = bundle.join("rootfs");
        let writable = self.layout.writable_layer(instance);
        rootfs::mount(&self.image.layers, &writable, &root).map_err(|error| of_io("", &error))?;
        image_root::check_mount_points(&root).map_err(of_bundle)?;
        let (passwd, group) = image_root::user_files(&root);
        let image_user = &self.image.config.user;
        let security = &self.config.security;
        let user =
            bundle::resolve_user(security, image_user, &passwd, &group).map_err(of_bundle)?;
        self.make_termination_log()?;
        self.make_log()?;
        let seccomp = self.seccomp_file()?;
        let mut facts = self.facts.clone();
        if self.config.security.privileged {
            facts.devices = facts::devices();
        }
        let made = bundle::oci_config(&BundleInput {
            container: &self.config,
            sandbox: &self.sandbox.config,
            image: &self.image.config,
            user: &user,
            host: &facts,
            paths: &self.paths(root),
            mounts: &self.mounts()?,
            pause_pid: self.pause_pid,
            target_pid: self.target_pid,
            cgroups_path: &self.record.cgroup,
            seccomp_file: seccomp.as_deref(),
        })
        .map_err(of_bundle)?;
        let file = bundle.join("config.json");
        let text = serde_json::to_vec(&made.config).expect("a JSON value has string keys only");
        crate::os::file::replace(&file, &text, 0o600)
            .map_err(|error| of_io(&format!("write {}", file.display()), &error))?;
        Ok(Prepared {
            user: ContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: user.additional_gids.into(),
            },
            clamped: made.clamped,
        })
    }

    fn instance(&self) -> Instance<'_> {
        super::instance(&self.config.uid, &self.record)
    }

    /// Sources of the pod's volumes, made safe to bind.
    fn mounts(&self) -> Result<Vec<ResolvedMount>, RuntimeError> {
        let Preparation { layout, config, .. } = self;
        let resolve = |(index, mount)| {
            volumes::resolve_mount(&layout.root, &config.uid, &config.name, index, mount)
        };
        let mounts = config.mounts.iter().enumerate();
        let resolved: Result<Vec<_>, _> = mounts.map(resolve).collect();
        resolved.map_err(|error| match error {
            MountError::Config(text) => RuntimeError::Config(text),
            MountError::Failed(text) => RuntimeError::Failed(text),
        })
    }

    fn paths(&self, root: PathBuf) -> BundlePaths {
        let uid = &self.config.uid;
        BundlePaths {
            rootfs: root,
            hosts: Some(self.layout.etc_hosts(uid)),
            hostname: Some(self.layout.hostname(uid)),
            resolv_conf: Some(self.layout.resolv_conf(uid)),
            shm: match self.sandbox.config.namespaces.ipc {
                NamespaceMode::Host => PathBuf::from("/dev/shm"),
                NamespaceMode::Pod | NamespaceMode::Container => self.layout.shm(uid),
            },
            termination_log: Some(self.record.termination_log.clone()),
        }
    }

    /// An empty file that any user of the container may write to, whatever our umask is.
    fn make_termination_log(&self) -> Result<(), RuntimeError> {
        let path = &self.record.termination_log;
        let parent = path.parent().expect("the layout gives it a directory");
        super::make_directory(parent)?;
        let mode = fs::Permissions::from_mode(TERMINATION_LOG_MODE);
        let made = fs::write(path, "").and_then(|()| fs::set_permissions(path, mode));
        made.map_err(|error| of_io(&format!("make {}", path.display()), &error))
    }

    /// The log's directory, and the link under the name that collectors look for.
    fn make_log(&self) -> Result<(), RuntimeError> {
        make_directory(&self.layout.logs, LOG_TOP_MODE)?;
        let parent = self.record.log.parent().expect("the layout gives it one");
        make_directory(parent, LOG_MODE)?;
        let ContainerRecord {
            namespace,
            pod_name,
            name,
            id,
            ..
        } = &self.record;
        let link = self.layout.log_link(namespace, pod_name, name, id);
        make_directory(link.parent().expect("below a directory"), LOG_MODE)?;
        let made = clean::remove_file(&link).and_then(|()| symlink(&self.record.log, &link));
        // Collectors miss it; the container does not.
        if let Err(error) = made {
            log::warn!("link {} to the log: {error}", link.display());
        }
        Ok(())
    }

    fn seccomp_file(&self) -> Result<Option<String>, RuntimeError> {
        let Seccomp::Localhost(relative) = &self.config.security.seccomp else {
            return Ok(None);
        };
        let path = self.layout.seccomp_profile(relative);
        let read = crate::os::file::read_bounded(&path, SECCOMP_BYTES_MAX);
        let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
        text.map(Some).map_err(|error| {
            RuntimeError::Config(format!("read seccomp profile {}: {error}", path.display()))
        })
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), RuntimeError> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path);
    made.map_err(|error| of_io(&format!("make {}", path.display()), &error))
}

fn of_bundle(error: BundleError) -> RuntimeError {
    match error {
        BundleError::Config(text) | BundleError::Image(text) => RuntimeError::Config(text),
    }
}
