//! The bodies of the steps: each does one thing to the outside and returns its outcome.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::check::{Action, Finding, Subject, check};
use super::core::{Core, EventKind};
use super::env::EnvContext;
use super::memory::{EndCause, Final, Health, ImageState};
use super::outcome::{Outcome, StartFailure};
use super::plan::{Step, has_its_turn, is_live, latest};
use super::tokens::{self, Tokens};
use super::view::{ContainerView, PodView, Role};
use super::worker::Shared;
use super::{
    cluster_tokens, container_config, hold, images, leftovers, records, resize, sandbox_config,
    volumes,
};
use crate::object::{Key, Kind, Object, Origin, Unhonoured};
use crate::world::{
    Area, BootTime, ContainerId, ContainerState, DiskError, PodObserved, RemoveError, RuntimeError,
    Stamp,
};

/// A container has at least this long to answer its stop signal, whatever preStop or the
/// containers stopped before it have used up.
/// Source: Kubernetes pkg/kubelet/kuberuntime (minimumGracePeriodInSeconds).
const STOP_MIN: Duration = Duration::from_secs(2);
/// How long a killed container may take to be seen as ended before the kill is repeated.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Runs one step to its end.
pub async fn run(shared: Rc<Shared>, view: Rc<PodView>, step: Step) -> Outcome {
    let core = shared.core.clone();
    match step {
        Step::SetUpVolumes => Outcome::Volumes(set_up_volumes(&shared, &view).await),
        Step::StartSandbox { attempt } => {
            let work = start_sandbox(&shared, &view, attempt);
            Outcome::Sandbox(core.turnstile.pass(&*core.world.clock, work).await)
        }
        Step::EnsureImage { container } => {
            let container = view.container(&container);
            let container = container.expect("plan names containers of this view");
            Outcome::Image {
                hash: container.hash.clone(),
                result: images::ensure(&core, &view, container).await,
            }
        }
        Step::StartContainer {
            container,
            attempt,
            after,
        } => {
            let work = start_container(&shared, &view, &container, attempt);
            let result = core.turnstile.pass(&*core.world.clock, work).await;
            Outcome::Started { after, result }
        }
        Step::PostStart { container, id } => {
            let result = post_start(&shared, &view, &container, &id).await;
            Outcome::Hook { id, result }
        }
        Step::Kill {
            container,
            id,
            message,
            deadline,
            in_turn,
        } => {
            let container = view.container(&container);
            let order = Kill {
                id,
                message,
                deadline,
                in_turn,
            };
            Outcome::Killed(kill(&shared, &view, container, order).await)
        }
        Step::RemoveContainer { id } => {
            Outcome::Garbage(core.world.runtime.remove_container(&shared.uid, &id).await)
        }
        Step::Resize => Outcome::Resized(resize_pod(&shared, &view).await),
        Step::Record(finals) => Outcome::Recorded(record(&core, &shared, *finals).await),
        Step::Release => {
            let given = leftovers::give_back(&core, &shared.uid).await;
            Outcome::Released(given.map_err(|error| error.to_string()))
        }
        Step::TearDown { cause } => Outcome::TornDown(tear_down(&shared, &view, cause).await),
        Step::End { .. } => unreachable!("the worker ends pods itself"),
    }
}

async fn set_up_volumes(
    shared: &Shared,
    view: &PodView,
) -> Result<(), Vec<crate::world::VolumeError>> {
    let core = &shared.core;
    // Cleared first: a change during the set-up asks for another one.
    shared.memory.borrow_mut().volumes_stale = false;
    let references = core.references(view);
    let typed = view.typed();
    let tokens = match view.key.origin {
        Origin::Local => renew_tokens(shared, view, &typed.pod),
        Origin::Remote => cluster_tokens::renew(shared, view, &typed.pod).await,
    };
    // One that cannot be made keeps no other from its content: a token that ends, a new certificate.
    let (contents, mut errors) =
        volumes::volume_contents(&typed.pod, &references, &core.node(), &tokens);
    if let Some(contents) = contents
        && let Err(more) = core.world.volumes.set_up(contents).await
    {
        errors.extend(more);
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(errors),
    }
}

/// The tokens that the pod's volumes show, made anew where it is time.
fn renew_tokens(shared: &Shared, view: &PodView, pod: &Pod) -> Tokens {
    let core = &shared.core;
    let mut memory = shared.memory.borrow_mut();
    let requests = tokens::requests(pod);
    let name = tokens::account_name(pod);
    let account = core.references(view).account(&view.key.namespace, name);
    let account = account.as_deref().filter(|account| !account.is_deleting());
    let account = account.ok_or_else(|| format!("serviceaccounts {name:?} not found"));
    let now = Stamp {
        wall: core.world.clock.credible(),
        ..core.world.stamp()
    };
    let uid = account.clone().map(Object::uid);
    let mint = |request: &tokens::Request| {
        let issuer = core.options.issuer.as_ref();
        let issuer = issuer.ok_or("this node makes no tokens for the pod")?;
        let name = &core.node().node_name;
        let node = core.reader.get_packed(&Key::local(Kind::Node, "", name));
        let node = node.map(|node| (name.clone(), node.uid().to_owned()));
        let minted = tokens::mint(issuer, account.clone()?, pod, node, request, now.wall)?;
        Ok((minted, tokens::Maker::Owner { life_s: None }))
    };
    memory.tokens.renew(requests, uid, now, mint);
    memory.tokens.clone()
}

async fn start_sandbox(shared: &Shared, view: &PodView, attempt: u32) -> Result<(), RuntimeError> {
    let core = &shared.core;
    if attempt > 0 {
        let text = "Pod sandbox changed, it will be killed and re-created.";
        core.event(view, None, EventKind::Normal, "SandboxChanged", text);
    }
    keep_pod(shared, view).await;
    core.refresh_dns().await;
    let made = sandbox_config::sandbox_config(&view.typed().pod, attempt, &core.node());
    let made = made.map_err(|error| RuntimeError::Config(error.0))?;
    // A node of its own has no cluster DNS, and its pods were not written for one.
    let missed = |reason: &str| reason != "MissingClusterDNS" || !view.is_static;
    for warning in made.warnings.into_iter().filter(|w| missed(w.reason)) {
        core.event(
            view,
            None,
            EventKind::Warning,
            warning.reason,
            warning.message,
        );
    }
    core.world
        .runtime
        .start_sandbox(Arc::new(made.config))
        .await
}

/// Writes down the pod with the resources that it may have, since when it is here, and what has run.
async fn keep_pod(shared: &Shared, view: &PodView) {
    let core = &shared.core;
    let object = core.reader.get(&view.key);
    let Some(object) = object.filter(|object| object.uid() == view.uid.as_str()) else {
        return;
    };
    let mut body = view.body();
    if let Some(start) = shared.memory.borrow().checkpoint.start {
        body["status"]["startTime"] = start.wall.to_string().into();
    }
    let begun = shared.memory.borrow().checkpoint.begun.clone();
    body["status"]["begun"] = begun.into();
    let object = Object {
        body,
        ..Object::clone(&object)
    };
    let kept = core.records.keep_pod(&shared.uid, &object).await;
    core.note_disk(Area::Root, &kept);
    if let Err(error) = kept {
        log::warn!("{error}; the pod goes on without this record");
    }
}

async fn resize_pod(shared: &Shared, view: &PodView) -> Result<(), RuntimeError> {
    keep_pod(shared, view).await;
    let runtime = &shared.core.world.runtime;
    match resize::in_place(view, &runtime.observe(&shared.uid)) {
        Some(resize) => runtime.resize(resize).await,
        None => Ok(()),
    }
}

async fn start_container(
    shared: &Shared,
    view: &PodView,
    name: &str,
    attempt: u32,
) -> Result<ContainerId, StartFailure> {
    let core = &shared.core;
    // It may have waited for its turn.
    if shared.memory.borrow().checkpoint.ending.is_some() {
        return Err(StartFailure::Ending);
    }
    let container = view.container(name);
    let container = container.expect("plan names containers of this view");
    let image = match shared.memory.borrow().container(name).image {
        ImageState::Here(image) => image,
        // It was here when this was planned.
        ImageState::Unknown | ImageState::Failed(_) => {
            let text = "its image was changed meanwhile".to_owned();
            return Err(StartFailure::Runtime(RuntimeError::Failed(text)));
        }
    };
    let observed = core.world.runtime.observe(&shared.uid);
    let pod_ips = match observed.sandbox {
        Some(_) if view.host_network => core.node().host_ips.clone(),
        Some(sandbox) => sandbox.ips,
        None => Vec::new(),
    };
    let references = core.references(view);
    let typed = view.typed();
    let services = match view.key.origin {
        Origin::Local => core.options.services.clone(),
        Origin::Remote => core.cluster_services(&typed.pod),
    };
    let context = EnvContext {
        node: &core.node(),
        references: &references,
        pod_ips: &pod_ips,
        services: &services,
    };
    let spec = typed.container(container);
    let config = container_config::container_config(&typed.pod, spec, attempt, &image, &context);
    let mut config = config.map_err(|error| StartFailure::Config {
        reason: error.reason.to_owned(),
        message: error.message,
    })?;
    if container.role == Role::Ephemeral {
        config.target = ephemeral_target(core, view, container)?;
    }
    let started = core.world.runtime.start_container(Arc::new(config)).await;
    if started.is_ok() {
        let text = "Container created";
        core.event(view, Some(container), EventKind::Normal, "Created", text);
        note_begun(shared, view, name).await;
    }
    started.map_err(StartFailure::Runtime)
}

/// What never restarts does not run a second time, whatever is left of its logs.
async fn note_begun(shared: &Shared, view: &PodView, name: &str) {
    let known = |name: &str| {
        shared
            .memory
            .borrow()
            .checkpoint
            .begun
            .iter()
            .any(|known| known == name)
    };
    // Sidecars start again even there: once is enough, of what writes to the disk.
    if view.runs_once() && !known(name) {
        let name = name.to_owned();
        shared.memory.borrow_mut().checkpoint.begun.push(name);
        let now = shared.view.borrow().clone();
        keep_pod(shared, &now).await;
    }
}

/// The instance whose processes an ephemeral container sees.
fn ephemeral_target(
    core: &Core,
    view: &PodView,
    container: &ContainerView,
) -> Result<Option<ContainerId>, StartFailure> {
    let config = |reason: &str, message| StartFailure::Config {
        reason: reason.to_owned(),
        message,
    };
    let mut fields = view.unhonoured.iter();
    let own = |f: &&Unhonoured| f.ephemeral() == Some(container.index);
    if let Some(field) = fields.find(|f| own(f) && f.waits(core.node().selinux)) {
        return Err(config(hold::NOT_HONOURED, hold::not_honoured(field)));
    }
    let typed = view.typed();
    let Some(target) = typed.target(container) else {
        return Ok(None);
    };
    let observed = core.world.runtime.observe(&view.uid);
    let instance = latest(&observed, target);
    let runs = instance.filter(|c| matches!(c.state, ContainerState::Running { .. }));
    match runs {
        Some(instance) => Ok(Some(instance.id.clone())),
        None => {
            let text = format!("unable to find target container {target:?}");
            Err(config("CreateContainerConfigError", text))
        }
    }
}

async fn post_start(
    shared: &Shared,
    view: &PodView,
    name: &str,
    id: &ContainerId,
) -> Result<(), String> {
    note_hook(shared, name, id, |health| health.hook_begun = true).await;
    let Some(container) = view.container(name) else {
        return Ok(());
    };
    let lifecycle = container.lifecycle.as_ref();
    let Some(hook) = lifecycle.and_then(|l| l.post_start.as_ref()) else {
        return Ok(());
    };
    run_hook(shared, view, container, id, &Action::of_hook(hook), None).await
}

/// Noted before it runs: a hook is never run twice for one instance, even over a crash.
async fn note_hook(shared: &Shared, name: &str, id: &ContainerId, begin: impl FnOnce(&mut Health)) {
    let checkpoint = {
        let mut memory = shared.memory.borrow_mut();
        let health = memory.checkpoint.health.get_mut(name);
        if let Some(health) = health.filter(|health| health.id == *id) {
            begin(health);
        }
        records::encode(&memory.checkpoint)
    };
    let records = &shared.core.records;
    if let Err(error) = records.keep_checkpoint(&shared.uid, checkpoint).await {
        let key = &shared.view.borrow().key;
        log::warn!("{key}: {error}; a hook of {name} may run twice if the agent dies");
    }
}

async fn run_hook(
    shared: &Shared,
    view: &PodView,
    container: &ContainerView,
    id: &ContainerId,
    action: &Option<Action>,
    timeout: Option<Duration>,
) -> Result<(), String> {
    let Some(action) = action else {
        return Err("no handler that can be run".to_owned());
    };
    let address = shared.address(view);
    let subject = Subject {
        pod: view,
        container,
        id,
        address: &address,
        is_hook: true,
    };
    match check(&shared.core, &subject, action, timeout).await {
        Finding::Good | Finding::Warned(_) => Ok(()),
        Finding::Bad(text) | Finding::Unknown(text) => Err(text),
    }
}

struct Kill {
    id: ContainerId,
    message: String,
    deadline: BootTime,
    in_turn: bool,
}

/// preStop, stop signal, patience until the deadline, kill; returns once the end was seen.
async fn kill(
    shared: &Shared,
    view: &PodView,
    container: Option<&ContainerView>,
    order: Kill,
) -> Result<(), RuntimeError> {
    let core = &shared.core;
    let runtime = &core.world.runtime;
    if container.is_some() {
        let text = order.message.clone();
        core.event(view, container, EventKind::Normal, "Killing", text);
    }
    if let Some(container) = container
        && core.world.clock.now() < order.deadline
    {
        pre_stop(shared, view, container, &order).await;
        if order.in_turn {
            let turn = |observed: &PodObserved| has_its_turn(view, container, observed);
            wait(shared, &turn, &|| shortened(shared, order.deadline)).await;
        }
    }
    let least = core.world.clock.now() + STOP_MIN;
    let deadline = order.deadline.max(least);
    match runtime.stop_container(&shared.uid, &order.id).await {
        Ok(()) | Err(RuntimeError::NotFound(_)) => {}
        Err(error) => log::warn!("{}: {error}; waiting for the kill", view.key),
    }
    let patience = || shortened(shared, deadline).max(least);
    if has_ended(shared, &order.id, &patience).await {
        return Ok(());
    }
    match runtime.kill_container(&shared.uid, &order.id).await {
        Ok(()) | Err(RuntimeError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let until = core.world.clock.now() + KILL_WAIT;
    if has_ended(shared, &order.id, &|| until).await {
        Ok(())
    } else {
        let id = &order.id;
        Err(RuntimeError::Timeout(format!(
            "container {id} was killed and has not ended yet"
        )))
    }
}

/// The deadline of a kill under way falls when the pod's ending gets less patient.
fn shortened(shared: &Shared, deadline: BootTime) -> BootTime {
    let memory = shared.memory.borrow();
    let ending = memory.checkpoint.ending.as_ref();
    ending.map_or(deadline, |ending| deadline.min(ending.deadline()))
}

async fn pre_stop(shared: &Shared, view: &PodView, container: &ContainerView, order: &Kill) {
    let lifecycle = container.lifecycle.as_ref();
    let Some(hook) = lifecycle.and_then(|l| l.pre_stop.as_ref()) else {
        return;
    };
    if !may_pre_stop(shared, container, &order.id) {
        return;
    }
    note_hook(shared, &container.name, &order.id, |health| {
        health.pre_stop_begun = true;
    })
    .await;
    let left = order.deadline.since(shared.core.world.clock.now());
    let action = Action::of_hook(hook);
    let run = run_hook(shared, view, container, &order.id, &action, Some(left));
    let ended = async {
        has_ended(shared, &order.id, &|| shortened(shared, order.deadline)).await;
        Ok(())
    };
    if let Err(text) = futures_lite::future::or(run, ended).await {
        let text = format!("PreStopHook failed: {text}");
        let reason = "FailedPreStopHook";
        shared
            .core
            .event(view, Some(container), EventKind::Warning, reason, text);
    }
}

/// preStop is for an instance that runs, and for each one once: a kill may have to be repeated.
fn may_pre_stop(shared: &Shared, container: &ContainerView, id: &ContainerId) -> bool {
    let observed = shared.core.world.runtime.observe(&shared.uid);
    let instance = observed.containers.iter().find(|c| c.id == *id);
    let runs = instance.is_some_and(|c| matches!(c.state, ContainerState::Running { .. }));
    let memory = shared.memory.borrow();
    let health = memory.health(&container.name, id);
    runs && health.is_none_or(|health| !health.pre_stop_begun)
}

/// Waits until the instance has ended or is gone (true), or `deadline()` has passed (false).
async fn has_ended(shared: &Shared, id: &ContainerId, deadline: &dyn Fn() -> BootTime) -> bool {
    let ended = |observed: &PodObserved| {
        let instance = observed.containers.iter().find(|c| c.id == *id);
        !instance.is_some_and(is_live)
    };
    wait(shared, &ended, deadline).await
}

/// Waits until it is so (true), or `deadline()` has passed (false).
async fn wait(
    shared: &Shared,
    so: &dyn Fn(&PodObserved) -> bool,
    deadline: &dyn Fn() -> BootTime,
) -> bool {
    let core = &shared.core;
    loop {
        let listener = shared.pulse.listen();
        if so(&core.world.runtime.observe(&shared.uid)) {
            return true;
        }
        let until = deadline();
        if core.world.clock.now() >= until {
            return false;
        }
        futures_lite::future::or(listener, core.world.clock.sleep_until(until)).await;
    }
}

async fn record(core: &Core, shared: &Shared, finals: Final) -> Result<Final, DiskError> {
    core.records.keep_finals(&shared.uid, &finals).await?;
    Ok(finals)
}

/// `Ok` as well if nothing is left but files: those wait for nobody's sake.
async fn tear_down(shared: &Shared, view: &PodView, cause: EndCause) -> Result<(), String> {
    let core = &shared.core;
    match cause {
        // The pods come back with the next start: what has ended for good must stay known.
        EndCause::Shutdown => match leftovers::let_go(core, &shared.uid).await {
            Ok(()) => Ok(()),
            Err(RemoveError::Files(why)) => {
                log::warn!("{}: {why}; left there", view.key);
                Ok(())
            }
            Err(RemoveError::Held(why)) => Err(why),
        },
        EndCause::Deleted | EndCause::DeadlineExceeded | EndCause::Evicted | EndCause::Rejected => {
            match leftovers::clear(core, &shared.uid, &view.key).await {
                Ok(()) => {}
                Err(RemoveError::Held(why)) => return Err(why),
                Err(RemoveError::Files(why)) => {
                    let text = format!("the pod is gone, its files will be removed later: {why}");
                    log::warn!("{}: {text}", view.key);
                    core.event(view, None, EventKind::Logged, "FilesLeft", text);
                    leftovers::leave(core, view, &why).await;
                }
            }
            core.registry.settle_held(&view.key).await;
            core.registry
                .finish_deletion(&view.key, shared.uid.as_str());
            Ok(())
        }
    }
}
