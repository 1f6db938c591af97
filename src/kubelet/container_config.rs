//! A container of a pod, as the runtime needs it: pod, references and node facts in, one
//! `ContainerConfig` out. Pure; called again for every instance, since references may have changed.

use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

use super::env::{EnvContext, Environment, environment};
use super::expand::{expand, expand_strict};
use super::facts::RecursiveReadOnly;
use super::{resources, security};
use crate::world::{
    ContainerConfig, Image, Mount, MountSource, Propagation, Security, TerminationMessagePolicy,
    Uid,
};

/// Where a container writes its last words. Source: core/v1 defaults.
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// What a container's configuration depends on besides pod and image.
pub type ContainerContext<'a> = EnvContext<'a>;

/// Shown as the waiting reason of the container; retried at each sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub reason: &'static str,
    pub message: String,
}

impl From<String> for ConfigError {
    fn from(message: String) -> ConfigError {
        ConfigError {
            reason: "CreateContainerConfigError",
            message,
        }
    }
}

/// Resolves everything of one container instance but the image's own part.
///
/// `container` is one of `pod`'s regular or init containers; `attempt` is its restart count.
/// Errors: `CreateContainerConfigError` with upstream's texts.
pub fn container_config(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    image: &Image,
    context: &ContainerContext,
) -> Result<ContainerConfig, ConfigError> {
    let uid = pod.metadata.uid.as_deref().and_then(Uid::new);
    let uid = uid.ok_or_else(|| "metadata.uid is missing or not one path component".to_owned())?;
    let environment = environment(pod, container, context)?;
    let node = context.node;
    let security = security::security(pod, container, node.seccomp_default)?;
    security::check_non_root(pod, &container.name, &security, &image.config.user)?;
    let words = |list: &Option<Vec<String>>| expand_all(list, &environment);
    let path = container
        .termination_message_path
        .clone()
        .filter(|path| !path.is_empty());
    Ok(ContainerConfig {
        uid,
        pod_name: pod.metadata.name.clone().unwrap_or_default(),
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: container.name.clone(),
        attempt,
        hash: container_hash(container),
        image: container.image.clone().unwrap_or_default(),
        image_id: image.id.clone(),
        image_shown: image.shown().to_owned(),
        command: words(&container.command),
        args: words(&container.args),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts: mounts(
            pod,
            container,
            &environment,
            &security,
            node.recursive_read_only,
        )?,
        env: environment.variables,
        security,
        resources: resources::container_resources(container),
        oom_score_adj: resources::oom_score_adj(pod, container, node.memory_bytes),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        target: None,
        termination_message_path: path.unwrap_or_else(|| TERMINATION_MESSAGE_PATH.to_owned()),
        termination_message_policy: match container.termination_message_policy.as_deref() {
            Some("FallbackToLogsOnError") => TerminationMessagePolicy::FallbackToLogsOnError,
            Some(_) | None => TerminationMessagePolicy::File,
        },
    })
}

fn expand_all(words: &Option<Vec<String>>, environment: &Environment) -> Vec<String> {
    let lookup = |name: &str| environment.get(name).map(str::to_owned);
    words
        .iter()
        .flatten()
        .map(|word| expand(word, lookup))
        .collect()
}

/// FNV-32a of the JSON of image and name, in lower-case hex: what a change of restarts a running
/// container. Source: kubecontainer.HashContainer.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let quoted = |text: &str| go_json_string(text);
    let json = format!(
        "{{\"image\":{},\"name\":{}}}",
        quoted(image),
        quoted(&container.name)
    );
    let fnv = json.bytes().fold(0x811c_9dc5u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{fnv:x}")
}

/// Go's encoder also escapes `<`, `>` and `&`, which serde_json does not.
fn go_json_string(text: &str) -> String {
    let plain = serde_json::Value::from(text).to_string();
    plain
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

fn mounts(
    pod: &Pod,
    container: &Container,
    environment: &Environment,
    security: &Security,
    support: RecursiveReadOnly,
) -> Result<Vec<Mount>, ConfigError> {
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = volumes
            .iter()
            .find(|volume| volume.name == wanted.name)
            .ok_or_else(|| {
                let (volume, container) = (&wanted.name, &container.name);
                format!("cannot find volume {volume:?} to mount into container {container:?}")
            })?;
        let sub_path = sub_path(wanted, environment)?;
        let stated = wanted.read_only == Some(true) || is_always_read_only(volume);
        let access = if stated {
            Write::Forbidden
        } else {
            Write::Allowed
        };
        let propagation = propagation(wanted, security)?;
        mounts.push(Mount {
            volume: wanted.name.clone(),
            source: match &volume.host_path {
                Some(host) => MountSource::HostPath {
                    path: host.path.clone(),
                    sub_path,
                },
                None => MountSource::Volume {
                    name: volume.name.clone(),
                    sub_path,
                },
            },
            container_path: wanted.mount_path.clone(),
            read_only: access == Write::Forbidden,
            recursive_read_only: recursive(wanted, access, propagation, support)?,
            propagation,
        });
    }
    Ok(mounts)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Allowed,
    Forbidden,
}

/// Volumes whose files the node writes are never writable from inside.
fn is_always_read_only(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

fn sub_path(mount: &VolumeMount, environment: &Environment) -> Result<Option<String>, String> {
    let expression = mount
        .sub_path_expr
        .as_deref()
        .filter(|text| !text.is_empty());
    let path = match (
        expression,
        mount.sub_path.as_deref().filter(|text| !text.is_empty()),
    ) {
        (Some(expression), _) => {
            let lookup = |name: &str| environment.get(name).map(str::to_owned);
            expand_strict(expression, lookup)
                .map_err(|name| format!("missing value for {name:?}"))?
        }
        (None, Some(path)) => path.to_owned(),
        (None, None) => return Ok(None),
    };
    if path.starts_with('/') {
        return Err(format!(
            "error SubPath `{path}` must not be an absolute path"
        ));
    }
    if path.split('/').any(|part| part == "..") || path.contains('\0') {
        return Err(format!(
            "unable to provision SubPath `{path}`: must not contain '..'"
        ));
    }
    Ok(Some(path))
}

fn propagation(mount: &VolumeMount, security: &Security) -> Result<Propagation, String> {
    match mount.mount_propagation.as_deref() {
        None | Some("" | "None") => Ok(Propagation::Private),
        Some("HostToContainer") => Ok(Propagation::HostToContainer),
        Some("Bidirectional") if security.privileged => Ok(Propagation::Bidirectional),
        Some("Bidirectional") => Err(format!(
            "volumeMount {:?}: Bidirectional mount propagation is available only to privileged containers",
            mount.name
        )),
        Some(other) => Err(format!(
            "volumeMount {:?}: unknown mountPropagation {other:?}",
            mount.name
        )),
    }
}

fn recursive(
    mount: &VolumeMount,
    access: Write,
    propagation: Propagation,
    support: RecursiveReadOnly,
) -> Result<bool, String> {
    let fits = access == Write::Forbidden && propagation == Propagation::Private;
    match (mount.recursive_read_only.as_deref(), support) {
        (None | Some("" | "Disabled"), _) => Ok(false),
        (Some("IfPossible"), support) => Ok(fits && support == RecursiveReadOnly::Supported),
        (Some("Enabled"), RecursiveReadOnly::Supported) if fits => Ok(true),
        (Some("Enabled"), RecursiveReadOnly::Supported) => Err(format!(
            "volumeMount {:?}: recursiveReadOnly needs readOnly and no mountPropagation",
            mount.name
        )),
        (Some("Enabled"), RecursiveReadOnly::Unsupported) => Err(format!(
            "volume {:?} requested recursive read-only mode, but it is not supported by the runtime",
            mount.name
        )),
        (Some(other), _) => Err(format!(
            "volumeMount {:?}: unknown recursiveReadOnly {other:?}",
            mount.name
        )),
    }
}
