//! Which image a container starts from: pull policy, pull secrets, what to do when the registry
//! cannot be reached.
//!
//! Beyond upstream: under `Always` an unreachable registry does not keep a node from running an
//! image that it has; an event says so (kubernetes#111822).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::core::{Core, EventKind};
use super::facts::References;
use super::memory::Trouble;
use super::view::{ContainerView, PodView, PullPolicy};
use crate::world::{BootTime, Image, PullError, PullRequest};

/// A failure, without the time of the next try: the caller knows the back-off.
pub type ImageFailure = Trouble;

/// Finds or fetches the image of one container. Publishes the events of upstream's image manager.
pub async fn ensure(
    core: &Core,
    pod: &PodView,
    container: &ContainerView,
) -> Result<Arc<Image>, ImageFailure> {
    let images = &core.world.images;
    images.first_scan().await;
    if let Some(image) = at_hand(core, pod, container) {
        return Ok(image);
    }
    let reference = &container.image;
    if container.pull_policy == PullPolicy::Never {
        let text =
            format!("Container image {reference:?} is not present with pull policy of Never");
        let kind = EventKind::Logged;
        core.event(pod, Some(container), kind, "ErrImageNeverPull", &*text);
        return Err(failure("ErrImageNeverPull", text));
    }
    pull(core, pod, container).await
}

/// The image, where its registry need not be asked for it. An event says why.
fn at_hand(core: &Core, pod: &PodView, container: &ContainerView) -> Option<Arc<Image>> {
    let reference = &container.image;
    let image = core.world.images.find(reference)?;
    let text = match container.pull_policy {
        PullPolicy::IfNotPresent | PullPolicy::Never => {
            format!("Container image {reference:?} already present on machine")
        }
        // An imported image is the operator's word on what this name means here.
        PullPolicy::Always if image.pinned => {
            format!("Container image {reference:?} was imported on this machine")
        }
        PullPolicy::Always => return None,
    };
    core.event(pod, Some(container), EventKind::Normal, "Pulled", text);
    Some(image)
}

async fn pull(
    core: &Core,
    pod: &PodView,
    container: &ContainerView,
) -> Result<Arc<Image>, ImageFailure> {
    let images = &core.world.images;
    let reference = &container.image;
    let text = format!("Pulling image {reference:?}");
    core.event(pod, Some(container), EventKind::Normal, "Pulling", text);
    let begun = core.world.clock.now();
    let request = PullRequest {
        reference: reference.clone(),
        docker_configs: docker_configs(core, pod),
    };
    let error = match images.pull(request).await {
        Ok(image) => {
            let took = core.world.clock.now().since(begun).as_secs_f64();
            let size = image.size_bytes;
            let text = format!(
                "Successfully pulled image {reference:?} in {took:.3}s \
                 ({took:.3}s including waiting). Image size: {size} bytes."
            );
            core.event(pod, Some(container), EventKind::Normal, "Pulled", text);
            return Ok(image);
        }
        Err(error) => error,
    };
    // It may have been imported meanwhile.
    if let Some(image) = at_hand(core, pod, container) {
        return Ok(image);
    }
    if let (PullError::Unreachable(cause), Some(image)) = (&error, images.find(reference)) {
        let text =
            format!("Registry of {reference:?} cannot be reached, using the image here: {cause}");
        let kind = EventKind::Warning;
        core.event(pod, Some(container), kind, "UsingCachedImage", text);
        return Ok(image);
    }
    // A disk that cannot be written has no use of room.
    if matches!(&error, PullError::Disk(why) if why.contains("no space left")) {
        core.images_did_not_fit.set(true);
    }
    let text = format!("Failed to pull image {reference:?}: {error}");
    core.event(pod, Some(container), EventKind::Logged, "Failed", text);
    let reason = match &error {
        PullError::InvalidName(_) => "InvalidImageName",
        PullError::Unreachable(_)
        | PullError::Refused(_)
        | PullError::Local(_)
        | PullError::Disk(_) => "ErrImagePull",
    };
    let text = format!("Error: {reason}");
    core.event(pod, Some(container), EventKind::Logged, "Failed", text);
    Err(failure(reason, error.to_string()))
}

fn failure(reason: &str, message: String) -> ImageFailure {
    Trouble {
        reason: reason.to_owned(),
        message,
        retry_at: BootTime::default(),
    }
}

/// The docker configurations of the pod's `imagePullSecrets`, in order. Missing or unusable ones
/// are skipped with an event, as upstream does.
fn docker_configs(core: &Core, pod: &PodView) -> Vec<Vec<u8>> {
    let references = core.references(pod);
    let mut configs = Vec::new();
    for name in &pod.pull_secrets {
        let object = references.secret(&pod.key.namespace, name);
        let config = object
            .as_deref()
            .and_then(|object| docker_config(&object.body));
        match config {
            Some(config) => configs.push(config),
            None => {
                let text = format!(
                    "Unable to retrieve some image pull secrets ({name}); attempting to pull \
                     the image may not succeed."
                );
                let reason = "FailedToRetrieveImagePullSecret";
                core.event(pod, None, EventKind::Warning, reason, text);
            }
        }
    }
    configs
}

/// A secret's docker configuration in the `{"auths": …}` form.
fn docker_config(secret: &serde_json::Value) -> Option<Vec<u8>> {
    let decode = |key: &str| BASE64.decode(secret["data"].get(key)?.as_str()?).ok();
    match secret["type"].as_str()? {
        "kubernetes.io/dockerconfigjson" => decode(".dockerconfigjson"),
        "kubernetes.io/dockercfg" => {
            let auths: serde_json::Value = serde_json::from_slice(&decode(".dockercfg")?).ok()?;
            serde_json::to_vec(&serde_json::json!({ "auths": auths })).ok()
        }
        _ => None,
    }
}
