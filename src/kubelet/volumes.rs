//! What the volumes of a pod contain: the pod and the objects it names in, files out. Pure.
//!
//! Called at each sync, since configMaps and secrets change; the runtime's volumes write only
//! what differs. gitRepo is not there on purpose (CVE-2024-10220, CVE-2025-1767), and neither is
//! any volume of a cluster: they are reported by name, never skipped.
//! Source: k8s.io/kubernetes pkg/volume/{configmap,secret,downwardapi,projected,emptydir,hostpath}.

use std::collections::BTreeMap;

use base64::Engine;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource,
    KeyToPath, Pod, ProjectedVolumeSource, SecretProjection, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};

use super::env::{find_container, metadata_field, resource_value, secret_bytes};
use super::facts::{NodeFacts, References, text_entries};
use super::resources::pod_cgroup;
use super::tokens::{Request, Tokens};
use crate::object::gather::Gather;
use crate::object::{Object, Quantity};
use crate::world::{
    FileMedium, HostPathType, PodVolumes, ProjectedFile, Uid, VolumeContent, VolumeError,
    VolumeSetUp,
};

/// Bits of files whose volume states none. Source: core/v1 defaults.
const MODE_DEFAULT: i32 = 0o644;
/// Sum of the bytes of one volume's files: sixteen objects of the largest size (1 MiB each).
const VOLUME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Path lengths. Source: limits.h, upstream's atomic writer.
const PATH_BYTES_MAX: usize = 4096;
const COMPONENT_BYTES_MAX: usize = 255;

const CONFIG_MAP: &str = "kubernetes.io~configmap";
const SECRET: &str = "kubernetes.io~secret";
const DOWNWARD_API: &str = "kubernetes.io~downward-api";
const PROJECTED: &str = "kubernetes.io~projected";

/// Files of one volume by path, so that of two with one path the later wins.
type Files = BTreeMap<String, ProjectedFile>;

struct Scope<'a> {
    pod: &'a Pod,
    references: &'a dyn References,
    node: &'a NodeFacts,
    tokens: &'a Tokens,
}

/// Contents of the volumes of a pod that can be set up, and an error for each of the others, with
/// upstream's texts.
pub fn volume_contents(
    pod: &Pod,
    references: &dyn References,
    node: &NodeFacts,
    tokens: &Tokens,
) -> (Option<PodVolumes>, Vec<VolumeError>) {
    let scope = Scope {
        pod,
        references,
        node,
        tokens,
    };
    let spec = pod.spec.as_ref();
    let mut volumes = Vec::new();
    let mut errors = Vec::new();
    let stated = spec
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    for (index, volume) in stated.iter().enumerate() {
        match content(&scope, index, volume) {
            Ok(content) => volumes.push(VolumeSetUp {
                name: volume.name.clone(),
                content,
            }),
            Err(message) => errors.push(VolumeError {
                volume: volume.name.clone(),
                message,
            }),
        }
    }
    let context = spec.and_then(|spec| spec.security_context.as_ref());
    let fs_group = match context.and_then(|c| c.fs_group).map(u32::try_from) {
        None => None,
        Some(Ok(group)) => Some(group),
        Some(Err(_)) => {
            let message = "spec.securityContext.fsGroup is out of range".to_owned();
            errors.push(VolumeError {
                volume: String::new(),
                message,
            });
            // Of whose group the files are nobody knows.
            return (None, errors);
        }
    };
    let policy = context.and_then(|c| c.fs_group_change_policy.as_deref());
    let Some(uid) = pod.metadata.uid.as_deref().and_then(Uid::new) else {
        let message = "metadata.uid is not one path component".to_owned();
        errors.push(VolumeError {
            volume: String::new(),
            message,
        });
        return (None, errors);
    };
    let volumes = PodVolumes {
        uid,
        fs_group,
        skip_matching_root: policy == Some("OnRootMismatch"),
        volumes,
    };
    (Some(volumes), errors)
}

fn content(scope: &Scope, index: usize, volume: &Volume) -> Result<VolumeContent, String> {
    check_name(&volume.name)?;
    if let Some(source) = &volume.empty_dir {
        return empty_dir(scope, source);
    }
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    if let Some(source) = &volume.config_map {
        let projection = ConfigMapProjection {
            items: source.items.clone(),
            name: source.name.clone(),
            optional: source.optional,
        };
        let mut files = Files::new();
        add_config_map(scope, &projection, source.default_mode, &mut files)?;
        return finish(CONFIG_MAP, FileMedium::Disk, files);
    }
    if let Some(source) = &volume.secret {
        let projection = SecretProjection {
            items: source.items.clone(),
            name: source.secret_name.clone().unwrap_or_default(),
            optional: source.optional,
        };
        let mut files = Files::new();
        add_secret(scope, &projection, source.default_mode, &mut files)?;
        return finish(SECRET, FileMedium::Tmpfs, files);
    }
    if let Some(source) = &volume.downward_api {
        let mut files = Files::new();
        add_downward(
            scope,
            source.items.iter().flatten(),
            source.default_mode,
            &mut files,
        )?;
        return finish(DOWNWARD_API, FileMedium::Tmpfs, files);
    }
    if let Some(source) = &volume.projected {
        return projected(scope, index, source);
    }
    match unsupported_source(volume) {
        // The API makes a volume that names no source an emptyDir; so do manifests' defaults.
        None => empty_dir(scope, &EmptyDirVolumeSource::default()),
        Some(kind) => Err(format!(
            "spec.volumes[{index}].{kind} is not honoured by this node"
        )),
    }
}

/// A volume's name is a directory name.
fn check_name(name: &str) -> Result<(), String> {
    match name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
        true => Err(format!("volume name {name:?} is not one path component")),
        false => Ok(()),
    }
}

/// The field that the volume's source is in, if it is one that this node does not have.
fn unsupported_source(volume: &Volume) -> Option<&'static str> {
    let sources = [
        (
            "awsElasticBlockStore",
            volume.aws_elastic_block_store.is_some(),
        ),
        ("azureDisk", volume.azure_disk.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("image", volume.image.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("nfs", volume.nfs.is_some()),
        (
            "persistentVolumeClaim",
            volume.persistent_volume_claim.is_some(),
        ),
        (
            "photonPersistentDisk",
            volume.photon_persistent_disk.is_some(),
        ),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
    ];
    let mut sources = sources.into_iter();
    sources.find_map(|(name, is_set)| is_set.then_some(name))
}

/// tmpfs is as large as the smallest that is stated: sizeLimit, the pod's memory, the node's.
fn empty_dir(scope: &Scope, source: &EmptyDirVolumeSource) -> Result<VolumeContent, String> {
    let medium = match source.medium.as_deref() {
        None | Some("") => {
            return Ok(VolumeContent::EmptyDir {
                medium: FileMedium::Disk,
                size_bytes: None,
            });
        }
        Some("Memory") => FileMedium::Tmpfs,
        Some(other) => {
            return Err(format!(
                "emptyDir.medium {other:?} is not honoured by this node"
            ));
        }
    };
    let stated = source
        .size_limit
        .as_ref()
        .and_then(|q| q.0.parse::<Quantity>().ok())
        .map(Quantity::value);
    let of_pod = pod_cgroup(scope.pod, None).resources.memory_bytes_max;
    let of_node = Some(scope.node.allocatable.memory.value());
    let sizes = [stated, of_pod, of_node].into_iter().flatten();
    let smallest = sizes.filter(|bytes| *bytes > 0).min();
    let size_bytes = smallest.map(i64::unsigned_abs);
    Ok(VolumeContent::EmptyDir { medium, size_bytes })
}

fn host_path(source: &HostPathVolumeSource) -> Result<VolumeContent, String> {
    let path = &source.path;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(format!("hostPath {path:?} is not an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("hostPath {path:?} must not contain '..'"));
    }
    let kind = match source.type_.as_deref() {
        None | Some("") => HostPathType::Unset,
        Some("DirectoryOrCreate") => HostPathType::DirectoryOrCreate,
        Some("Directory") => HostPathType::Directory,
        Some("FileOrCreate") => HostPathType::FileOrCreate,
        Some("File") => HostPathType::File,
        Some("Socket") => HostPathType::Socket,
        Some("CharDevice") => HostPathType::CharDevice,
        Some("BlockDevice") => HostPathType::BlockDevice,
        Some(other) => return Err(format!("hostPath type {other:?} is unknown")),
    };
    Ok(VolumeContent::HostPath {
        path: path.clone(),
        kind,
    })
}

fn projected(
    scope: &Scope,
    index: usize,
    source: &ProjectedVolumeSource,
) -> Result<VolumeContent, String> {
    let mode = source.default_mode;
    let mut files = Files::new();
    for (at, part) in source.sources.iter().flatten().enumerate() {
        let VolumeProjection {
            cluster_trust_bundle,
            config_map,
            downward_api,
            pod_certificate,
            secret,
            service_account_token,
        } = part;
        let field = |name: &str| format!("spec.volumes[{index}].projected.sources[{at}].{name}");
        for (name, is_set) in [
            ("clusterTrustBundle", cluster_trust_bundle.is_some()),
            ("podCertificate", pod_certificate.is_some()),
        ] {
            if is_set {
                return Err(format!("{} is not honoured yet", field(name)));
            }
        }
        if let Some(part) = service_account_token {
            add_token(scope, part, mode, &mut files)?;
        }
        if let Some(part) = config_map {
            add_config_map(scope, part, mode, &mut files)?;
        }
        if let Some(part) = secret {
            add_secret(scope, part, mode, &mut files)?;
        }
        if let Some(part) = downward_api {
            add_downward(scope, part.items.iter().flatten(), mode, &mut files)?;
        }
    }
    finish(PROJECTED, FileMedium::Tmpfs, files)
}

fn add_config_map(
    scope: &Scope,
    source: &ConfigMapProjection,
    mode: Option<i32>,
    files: &mut Files,
) -> Result<(), String> {
    let namespace = scope.pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = &source.name;
    let Some(object) = scope.references.config_map(namespace, name) else {
        return missing("configmap", name, source.optional);
    };
    let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
    let mut entries: BTreeMap<String, Vec<u8>> = text_entries(&object, "data")
        .map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec()))
        .gathered();
    entries.extend(
        text_entries(&object, "binaryData")
            .filter_map(|(key, text)| Some((key.to_owned(), decode(text)?))),
    );
    let absent = "configmap references non-existent config key";
    project(
        &entries,
        source.items.as_deref(),
        mode,
        source.optional,
        absent,
        files,
    )
}

fn add_secret(
    scope: &Scope,
    source: &SecretProjection,
    mode: Option<i32>,
    files: &mut Files,
) -> Result<(), String> {
    let namespace = scope.pod.metadata.namespace.as_deref().unwrap_or_default();
    let Some(object) = scope.references.secret(namespace, &source.name) else {
        return missing("secret", &source.name, source.optional);
    };
    let entries = secret_entries(&object);
    let absent = "references non-existent secret key";
    project(
        &entries,
        source.items.as_deref(),
        mode,
        source.optional,
        absent,
        files,
    )
}

fn secret_entries(object: &Object) -> BTreeMap<String, Vec<u8>> {
    let keys = text_entries(object, "data").map(|(key, _)| key);
    keys.filter_map(|key| Some((key.to_owned(), secret_bytes(object, key)?)))
        .gathered()
}

/// An optional object that is not there makes an empty volume; its content appears later.
fn missing(kind: &str, name: &str, optional: Option<bool>) -> Result<(), String> {
    match optional {
        Some(true) => Ok(()),
        Some(false) | None => Err(format!("{kind} {name:?} not found")),
    }
}

fn project(
    entries: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
    absent: &str,
    files: &mut Files,
) -> Result<(), String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        for (key, bytes) in entries {
            add(files, key, mode, bytes.clone())?;
        }
        return Ok(());
    };
    for item in items {
        match (entries.get(&item.key), optional) {
            (Some(bytes), _) => {
                add(files, &item.path, item.mode.or(mode), bytes.clone())?;
            }
            (None, Some(true)) => {}
            (None, Some(false) | None) => return Err(format!("{absent}: {}", item.key)),
        }
    }
    Ok(())
}

fn add_downward<'a>(
    scope: &Scope,
    items: impl Iterator<Item = &'a DownwardAPIVolumeFile>,
    mode: Option<i32>,
    files: &mut Files,
) -> Result<(), String> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => metadata_field(scope.pod, &field.field_path)?,
            (None, Some(selector)) => {
                let name = selector.container_name.as_deref().unwrap_or_default();
                let container = find_container(scope.pod, name)
                    .ok_or_else(|| format!("container {name} not found"))?;
                resource_value(scope.pod, container, selector, &scope.node.allocatable)?
            }
            (None, None) => {
                return Err(format!("downwardAPI item {:?} names no source", item.path));
            }
        };
        add(files, &item.path, item.mode.or(mode), text.into_bytes())?;
    }
    Ok(())
}

/// Only those read a token who must: its owner if all containers run as one user, the pod's group.
/// Source: Kubernetes pkg/volume/projected (collectData).
fn add_token(
    scope: &Scope,
    source: &ServiceAccountTokenProjection,
    mode: Option<i32>,
    files: &mut Files,
) -> Result<(), String> {
    const MODE_OWN: i32 = 0o600;
    let token = scope.tokens.get(&Request::of(source))?;
    let owner = common_user(scope.pod);
    let context = scope
        .pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref());
    let grouped = context.is_some_and(|context| context.fs_group.is_some());
    let mode = if owner.is_some() || grouped {
        Some(MODE_OWN)
    } else {
        mode
    };
    let path = add(files, &source.path, mode, token.as_bytes().to_vec())?;
    if let Some(file) = files.get_mut(&path) {
        file.uid = owner;
    }
    Ok(())
}

/// The user that every container is said to run as.
/// Source: Kubernetes pkg/volume/util (FsUserFrom).
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user);
    let init = spec.init_containers.iter().flatten();
    let own = init
        .chain(&spec.containers)
        .map(|c| c.security_context.as_ref());
    let added = spec.ephemeral_containers.iter().flatten();
    let contexts = own.chain(added.map(|c| c.security_context.as_ref()));
    let mut users = contexts.map(|context| context.and_then(|c| c.run_as_user).or(of_pod));
    let first = users.next()??;
    let same = users.all(|user| user == Some(first));
    same.then(|| u32::try_from(first).ok()).flatten()
}

/// Returns the path as it is used.
fn add(files: &mut Files, path: &str, mode: Option<i32>, bytes: Vec<u8>) -> Result<String, String> {
    let path = checked_path(path)?;
    let mode = u32::try_from(mode.unwrap_or(MODE_DEFAULT))
        .ok()
        .filter(|mode| *mode <= 0o777);
    let mode = mode.ok_or_else(|| format!("mode of {path:?} is not between 0 and 0777"))?;
    files.insert(
        path.clone(),
        ProjectedFile {
            path: path.clone(),
            mode,
            uid: None,
            bytes,
        },
    );
    Ok(path)
}

/// Relative, no `..`, nothing that could be taken for the atomic writer's own entries.
fn checked_path(path: &str) -> Result<String, String> {
    let components: Vec<&str> = path
        .split('/')
        .filter(|c| !c.is_empty() && *c != ".")
        .collect();
    let problem = if path.starts_with('/') {
        "must be relative"
    } else if path.contains('\0') || components.is_empty() {
        "must name a file"
    } else if components.contains(&"..") {
        "must not contain '..'"
    } else if components[0].starts_with("..") {
        "must not start with '..'"
    } else if path.len() > PATH_BYTES_MAX
        || components.iter().any(|c| c.len() > COMPONENT_BYTES_MAX)
    {
        "is too long"
    } else {
        return Ok(components.join("/"));
    };
    Err(format!("invalid path {path:?}: {problem}"))
}

fn finish(plugin: &'static str, medium: FileMedium, files: Files) -> Result<VolumeContent, String> {
    let total: usize = files.values().map(|file| file.bytes.len()).sum();
    if total > VOLUME_BYTES_MAX {
        return Err(format!(
            "files take {total} bytes, more than {VOLUME_BYTES_MAX}"
        ));
    }
    for path in files.keys() {
        let below = files.range(format!("{path}/")..).next();
        if below.is_some_and(|(other, _)| other.starts_with(&format!("{path}/"))) {
            return Err(format!(
                "invalid path {path:?}: is both a file and a directory"
            ));
        }
    }
    Ok(VolumeContent::Files {
        plugin,
        medium,
        files: files.into_values().collect(),
    })
}
