//! The effective securityContext of a container: its own over the pod's over defaults; and the
//! checks that need the image.

use k8s_openapi::api::core::v1::{
    Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};

use super::facts::SeccompDefault;
use crate::world::{Capabilities, ProcMount, Seccomp, Security};

/// Merges both contexts.
/// Errors: text for `CreateContainerConfigError`, naming the field.
pub fn security(
    pod: &Pod,
    container: &Container,
    seccomp_default: SeccompDefault,
) -> Result<Security, String> {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.clone());
    let of_pod: PodSecurityContext = of_pod.unwrap_or_default();
    let own: SecurityContext = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let capabilities = own.capabilities.unwrap_or_default();
    let no_new_privileges = own.allow_privilege_escalation == Some(false);
    let profile = own
        .seccomp_profile
        .as_ref()
        .or(of_pod.seccomp_profile.as_ref());
    Ok(Security {
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(of_pod.run_as_non_root) == Some(true),
        supplemental_groups: of_pod.supplemental_groups.unwrap_or_default(),
        strict_groups: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        fs_group: of_pod.fs_group,
        privileged,
        capabilities: Capabilities {
            add: upper(capabilities.add),
            drop: upper(capabilities.drop),
        },
        no_new_privileges,
        read_only_root: own.read_only_root_filesystem == Some(true),
        proc_mount: match own.proc_mount.as_deref() {
            None | Some("" | "Default") => ProcMount::Default,
            Some("Unmasked") => unmasked(pod)?,
            Some(other) => return Err(format!("securityContext.procMount: unknown {other:?}")),
        },
        seccomp: seccomp(profile, seccomp_default)?,
    })
}

/// Without a user namespace, an unmasked /proc would hand the host's settings to the container.
fn unmasked(pod: &Pod) -> Result<ProcMount, String> {
    match pod.spec.as_ref().and_then(|spec| spec.host_users) {
        Some(false) => Ok(ProcMount::Unmasked),
        Some(true) | None => {
            Err("securityContext.procMount: Unmasked needs spec.hostUsers to be false".to_owned())
        }
    }
}

fn upper(names: Option<Vec<String>>) -> Vec<String> {
    let names = names.unwrap_or_default();
    names.iter().map(|name| name.to_ascii_uppercase()).collect()
}

fn seccomp(profile: Option<&SeccompProfile>, default: SeccompDefault) -> Result<Seccomp, String> {
    let Some(profile) = profile else {
        return Ok(match default {
            SeccompDefault::Unconfined => Seccomp::Unconfined,
            SeccompDefault::RuntimeDefault => Seccomp::RuntimeDefault,
        });
    };
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Unconfined", _) => Ok(Seccomp::Unconfined),
        ("RuntimeDefault", _) => Ok(Seccomp::RuntimeDefault),
        // An empty name must never fall through to "no profile" (CVE-2023-2431).
        ("Localhost", None | Some("")) => {
            Err("localhostProfile must be set if seccompProfile type is Localhost.".to_owned())
        }
        ("Localhost", Some(name)) if is_below(name) => Ok(Seccomp::Localhost(name.to_owned())),
        ("Localhost", Some(name)) => Err(format!(
            "seccompProfile.localhostProfile: {name:?} must be a relative path without '..'"
        )),
        (other, _) => Err(format!("seccompProfile.type: unknown {other:?}")),
    }
}

fn is_below(path: &str) -> bool {
    !path.starts_with('/') && !path.contains('\0') && path.split('/').all(|part| part != "..")
}

/// Refuses a container that must not be root and would be, or whose image only names its user.
/// `image_user` is the image's `USER` as written. Errors: upstream's texts.
pub fn check_non_root(
    pod: &Pod,
    container: &str,
    security: &Security,
    image_user: &str,
) -> Result<(), String> {
    if !security.run_as_non_root {
        return Ok(());
    }
    let metadata = &pod.metadata;
    let place = format!(
        "(pod: \"{}_{}({})\", container: {container})",
        metadata.name.as_deref().unwrap_or_default(),
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.uid.as_deref().unwrap_or_default(),
    );
    if let Some(user) = security.run_as_user {
        return match user {
            0 => Err(format!(
                "container's runAsUser breaks non-root policy {place}"
            )),
            _ => Ok(()),
        };
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match (user, user.parse::<i64>()) {
        ("", _) | (_, Ok(0)) => Err(format!(
            "container has runAsNonRoot and image will run as root {place}"
        )),
        (_, Ok(_)) => Ok(()),
        (name, Err(_)) => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), \
             cannot verify user is non-root {place}"
        )),
    }
}
