//! What became of a step, and what the worker's memory makes of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::core::EventKind;
use super::images::ImageFailure;
use super::memory::{Condemned, Final, ImageState, Target, Trouble, Volumes};
use super::resize;
use super::view::{ContainerView, PodView};
use super::worker::Shared;
use crate::world::{Area, BootTime, ContainerId, DiskError, Image, RuntimeError, VolumeError};

/// A failed step is tried again after this long, with jitter.
/// Source: Kubernetes pkg/kubelet/kubelet.go (backOffPeriod).
const RETRY: Duration = Duration::from_secs(10);
/// For a sandbox this doubles, up to here: each try writes to the disk.
const SANDBOX_RETRY_MAX: Duration = Duration::from_secs(300);
/// A failed kill or removal is tried again after this long: somebody waits for it.
const REPEAT: Duration = Duration::from_secs(2);
/// Volumes are tried again after 0.5 s, doubling to 2 min 2 s.
/// Source: Kubernetes pkg/util/goroutinemap/exponentialbackoff.
const VOLUME_RETRY_MIN: Duration = Duration::from_millis(500);
const VOLUME_RETRY_MAX: Duration = Duration::from_secs(122);

#[derive(Debug)]
pub enum Outcome {
    Volumes(Result<(), Vec<VolumeError>>),
    Sandbox(Result<(), RuntimeError>),
    Image {
        /// Of the container as it was when the step began.
        hash: String,
        result: Result<Arc<Image>, ImageFailure>,
    },
    Started {
        /// The exit that this start answered.
        after: Option<BootTime>,
        result: Result<ContainerId, StartFailure>,
    },
    Hook {
        id: ContainerId,
        result: Result<(), String>,
    },
    Killed(Result<(), RuntimeError>),
    Garbage(Result<(), RuntimeError>),
    Resized(Result<(), RuntimeError>),
    Recorded(Result<Final, DiskError>),
    Released(Result<(), String>),
    TornDown(Result<(), String>),
}

/// Why no instance runs after a start: before anything was made, or by the runtime.
#[derive(Debug)]
pub enum StartFailure {
    /// The pod has been told to end meanwhile.
    Ending,
    Config {
        reason: String,
        message: String,
    },
    Runtime(RuntimeError),
}

/// Takes an outcome into the memory and publishes the events that belong to it.
pub fn absorb(shared: &Rc<Shared>, view: &PodView, target: &Target, outcome: Outcome) {
    shared.memory.borrow_mut().busy.remove(target);
    let container = match target {
        Target::Image(name) | Target::Container(name) | Target::Hook(name) => view.container(name),
        Target::Volumes
        | Target::Sandbox
        | Target::Garbage(_)
        | Target::Record
        | Target::Resize
        | Target::TearDown => None,
    };
    match outcome {
        Outcome::Volumes(result) => volumes(shared, view, result),
        Outcome::Sandbox(result) => sandbox(shared, view, result),
        // The image may have been changed meanwhile: then this one is not the answer.
        Outcome::Image { hash, result } => {
            if container.is_some_and(|c| c.hash == hash) {
                image(shared, target, container, result);
            }
        }
        Outcome::Started { after, result } => started(shared, view, container, after, result),
        Outcome::Hook { id, result } => hook(shared, view, container, &id, result),
        Outcome::Killed(result) | Outcome::Garbage(result) => repeat(shared, target, result),
        Outcome::Resized(result) => {
            let trouble = result
                .err()
                .map(|error| trouble(shared, "Error", error.to_string()));
            resize::note(shared, view, trouble);
        }
        Outcome::Recorded(result) => recorded(shared, result),
        Outcome::Released(result) => {
            let done = tear_down(shared, result);
            shared.memory.borrow_mut().released = done;
            // Who waits for what it had looks again.
            shared.core.departures.notify(usize::MAX);
        }
        Outcome::TornDown(result) => {
            let done = tear_down(shared, result);
            shared.memory.borrow_mut().torn_down = done;
        }
    }
}

/// A kill or removal that fails at once must not be asked for again at once.
fn repeat(shared: &Shared, target: &Target, result: Result<(), RuntimeError>) {
    let retries = &mut shared.memory.borrow_mut().retries;
    retries.remove(target);
    if let Err(error) = result {
        let at = shared.core.world.clock.now() + REPEAT;
        log::warn!(
            "{}: {error}; trying again in {} s",
            shared.view.borrow().key,
            REPEAT.as_secs()
        );
        retries.insert(target.clone(), at);
    }
}

/// Now + about ten seconds.
fn retry_at(shared: &Shared) -> BootTime {
    let world = &shared.core.world;
    let jitter = Duration::from_millis(world.random.below(2_000));
    world.clock.now() + RETRY + jitter
}

fn trouble(shared: &Shared, reason: &str, message: String) -> Trouble {
    Trouble {
        reason: reason.to_owned(),
        message,
        retry_at: retry_at(shared),
    }
}

fn volumes(shared: &Shared, view: &PodView, result: Result<(), Vec<VolumeError>>) {
    let Err(errors) = result else {
        let mut memory = shared.memory.borrow_mut();
        memory.volumes = Volumes::Ready;
        memory.refresh_retry = None;
        return;
    };
    for error in &errors {
        let text = error.to_string();
        shared
            .core
            .event(view, None, EventKind::Warning, "FailedMount", text);
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let mut memory = shared.memory.borrow_mut();
    let pause = match &memory.volumes {
        Volumes::Failed(_, pause) => (*pause * 2).min(VOLUME_RETRY_MAX),
        // A refresh that failed leaves the mounted content as it was, and is tried again.
        Volumes::Ready => {
            let known = memory.refresh_retry.map(|(_, pause)| pause * 2);
            let pause = known.unwrap_or(VOLUME_RETRY_MIN).min(VOLUME_RETRY_MAX);
            memory.refresh_retry = Some((shared.core.world.clock.now() + pause, pause));
            memory.volumes_stale = true;
            return;
        }
        Volumes::Unset => VOLUME_RETRY_MIN,
    };
    let trouble = Trouble {
        reason: "FailedMount".to_owned(),
        message: texts.join("; "),
        retry_at: shared.core.world.clock.now() + pause,
    };
    memory.volumes = Volumes::Failed(trouble, pause);
}

fn sandbox(shared: &Shared, view: &PodView, result: Result<(), RuntimeError>) {
    let memory = &mut *shared.memory.borrow_mut();
    let before = memory.sandbox_trouble.take();
    if let Err(error) = result {
        let text = format!("Failed to create pod sandbox: {error}");
        let reason = "FailedCreatePodSandBox";
        shared
            .core
            .event(view, None, EventKind::Warning, reason, &*text);
        let pause = before.map_or(RETRY, |(_, pause)| (pause * 2).min(SANDBOX_RETRY_MAX));
        let mut trouble = trouble(shared, reason, text);
        trouble.retry_at = trouble.retry_at + (pause - RETRY);
        memory.sandbox_trouble = Some((trouble, pause));
    }
}

fn image(
    shared: &Shared,
    target: &Target,
    container: Option<&ContainerView>,
    result: Result<Arc<Image>, ImageFailure>,
) {
    let Target::Image(name) = target else {
        return;
    };
    let now = shared.core.world.clock.now();
    let mut memory = shared.memory.borrow_mut();
    let known = memory.container_mut(name);
    known.image = match result {
        Ok(image) => ImageState::Here(image),
        Err(mut failure) => {
            known.image_back_off.restarted(now, now);
            failure.retry_at = known.image_back_off.ready_at(now);
            let container = container.map_or(name.as_str(), |c| c.name.as_str());
            log::warn!(
                "{}: image of {container}: {}; trying again in {} s",
                shared.view.borrow().key,
                failure.message,
                known.image_back_off.delay().as_secs()
            );
            ImageState::Failed(failure)
        }
    };
}

fn started(
    shared: &Shared,
    view: &PodView,
    container: Option<&ContainerView>,
    after: Option<BootTime>,
    result: Result<ContainerId, StartFailure>,
) {
    let Some(container) = container else {
        return;
    };
    let core = &shared.core;
    let now = core.world.clock.now();
    let failure = match result {
        Ok(_) => {
            let text = "Container started";
            core.event(view, Some(container), EventKind::Normal, "Started", text);
            None
        }
        // Nothing was begun, and nothing is to be.
        Err(StartFailure::Ending) => return,
        Err(StartFailure::Config { reason, message }) => Some((reason, message)),
        Err(StartFailure::Runtime(error)) => {
            let reason = match &error {
                RuntimeError::Config(_) => "CreateContainerConfigError",
                RuntimeError::Start { .. } => "RunContainerError",
                RuntimeError::NotFound(_)
                | RuntimeError::Failed(_)
                | RuntimeError::Disk(_)
                | RuntimeError::Timeout(_) => "CreateContainerError",
            };
            Some((reason.to_owned(), error.to_string()))
        }
    };
    let ran = failure
        .as_ref()
        .is_none_or(|(reason, _)| reason == "RunContainerError");
    if let Some((_, message)) = &failure {
        let text = format!("Error: {message}");
        core.event(view, Some(container), EventKind::Warning, "Failed", text);
    }
    let retry = failure.map(|(reason, message)| trouble(shared, &reason, message));
    let mut memory = shared.memory.borrow_mut();
    let known = memory.container_mut(&container.name);
    known.trouble = retry;
    // Each start asks anew: until then the image may be removed, or its name moved on.
    known.image = ImageState::Unknown;
    if ran {
        // The instance exists, as running or as ended at once: its exits are what is counted.
        if let Some(failed) = after {
            memory
                .back_off_mut(&container.name, &container.hash)
                .restarted(failed, now);
        }
    }
}

fn hook(
    shared: &Shared,
    view: &PodView,
    container: Option<&ContainerView>,
    id: &ContainerId,
    result: Result<(), String>,
) {
    let Some(container) = container else {
        return;
    };
    if let Err(text) = &result {
        log::debug!(
            "pod {}: postStart of {}: {text}",
            shared.uid,
            container.name
        );
        let reason = "FailedPostStartHook";
        let text = format!("PostStartHook failed: {text}");
        shared
            .core
            .event(view, Some(container), EventKind::Warning, reason, text);
    }
    let mut memory = shared.memory.borrow_mut();
    let Some(health) = memory.checkpoint.health.get_mut(&container.name) else {
        return;
    };
    if health.id != *id {
        return;
    }
    match result {
        Ok(()) => health.hook_done = true,
        Err(_) => {
            health.condemned.get_or_insert(Condemned {
                message: "FailedPostStartHook".to_owned(),
                grace: view.grace,
            });
        }
    }
}

fn recorded(shared: &Shared, result: Result<Final, DiskError>) {
    let (result, kept) = match result {
        Ok(finals) => (Ok(finals), Ok(())),
        Err(error) => (Err(error.clone()), Err(error)),
    };
    shared.core.note_disk(Area::Root, &kept);
    let retry = match result {
        Ok(finals) => {
            shared.memory.borrow_mut().finals = finals;
            // A finished pod makes room for one that waits.
            shared.core.departures.notify(usize::MAX);
            None
        }
        Err(error) => {
            log::error!(
                "{}: {error}; its end is not on stable storage yet, trying again",
                shared.view.borrow().key
            );
            Some(retry_at(shared))
        }
    };
    shared.memory.borrow_mut().record_retry = retry;
}

/// Whether everything is gone; if not, the rest is tried again later.
fn tear_down(shared: &Shared, result: Result<(), String>) -> bool {
    let done = result.is_ok();
    let trouble = result.err().map(|error| {
        log::warn!("{}: {error}; trying again", shared.view.borrow().key);
        trouble(shared, "FailedKillPod", error)
    });
    shared.memory.borrow_mut().tear_down_trouble = trouble;
    done
}
