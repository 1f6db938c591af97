//! A pod that should run: sandbox first, then init containers one by one, then the rest, and every
//! container that ended is restarted, or its end is recorded, by its policy.

use std::time::Duration;

use super::super::memory::{ContainerMemory, EndCause, ImageState, Target, Trouble, Volumes};
use super::super::resize::{Change, change, in_place};
use super::super::view::{ContainerView, RestartPolicy, Role};
use super::ending::{begin_record, final_phase, stop_all, with_exits};
use super::{Plan, Situation, Step, Waiting, exit_of, is_live, order};
use crate::world::{BootTime, ContainerObserved, ContainerState, SandboxState};

/// How long a start that nobody waits for any more may take: longer than the runtime's own limit.
pub(super) const START_PATIENCE: Duration = Duration::from_secs(150);

/// From one replacement of a sandbox to the next.
/// Source: Kubernetes pkg/kubelet/kubelet.go (backOffPeriod).
const SANDBOX_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// What one container needs.
enum Need {
    /// It runs, or its end is final.
    Nothing,
    /// A step on it is under way, or it has to get ready by itself.
    Patience,
    Start(Start),
}

/// A new instance, not before a time.
struct Start {
    attempt: u32,
    not_before: BootTime,
    /// The exit that it answers.
    after: Option<BootTime>,
}

pub(super) fn advance(situation: &Situation<'_>, plan: &mut Plan) {
    if past_deadline(situation, plan) {
        return record_final_exits(situation, plan);
    }
    situation.remove_garbage(plan);
    kill_what_must_not_run(situation, plan);
    resize(situation, plan);
    if let Some(verdict) = verdict(situation) {
        return finish(situation, verdict, plan);
    }
    record_final_exits(situation, plan);
    wait_for_starts(situation, plan);

    let mut wanted = wanted(situation, plan);
    wanted.extend(ephemeral(situation, plan));
    if let Some(held) = situation.held {
        for container in &situation.view.containers {
            plan.wait(&container.name, held.clone());
        }
        return;
    }
    if !may_be_rebuilt(situation) {
        for (container, _) in &wanted {
            plan.wait(&container.name, not_rebuilt(situation));
        }
        return;
    }
    prepare_volumes(situation, plan, !wanted.is_empty());
    let sandbox = prepare_sandbox(situation, plan, !wanted.is_empty());
    for (container, need) in wanted {
        let sandbox = match order::has_to_queue(situation, plan, container) {
            true => Sandbox::Coming,
            false => sandbox,
        };
        start(situation, plan, container, need, sandbox);
    }
}

/// `activeDeadlineSeconds` counts from the pod's start, on boot time as far as that goes.
fn past_deadline(situation: &Situation<'_>, plan: &mut Plan) -> bool {
    let limit = situation.view.active_deadline;
    let checkpoint = &situation.memory.checkpoint;
    let Some((limit, start)) = limit.zip(checkpoint.start) else {
        return false;
    };
    let deadline = start.boot + limit.saturating_sub(checkpoint.before);
    if situation.now < deadline {
        plan.wake(deadline);
        return false;
    }
    let cause = EndCause::DeadlineExceeded;
    plan.begin(situation.memory, Step::End { cause });
    true
}

/// Ends instances that live without a sandbox, whose definition changed, that a probe or hook
/// condemned, or that the spec no longer has. An init container runs to its end as it was.
fn kill_what_must_not_run(situation: &Situation<'_>, plan: &mut Plan) {
    let grace = situation.view.grace;
    let ready = situation.sandbox_ready();
    for (instance, view) in situation.live() {
        let name = &instance.name;
        let Some(view) = view else {
            situation.kill(plan, instance, "container is no longer in the pod", grace);
            continue;
        };
        let health = situation.memory.health(name, &instance.id);
        if !ready {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            situation.kill(plan, instance, text, grace);
        } else if instance.hash != view.hash && view.role != Role::Init {
            let text = format!("Container {name} definition changed, will be restarted");
            situation.kill(plan, instance, &text, grace);
        } else if change(view, instance) == Change::Restart {
            let text = format!("Container {name} resize requires restart");
            situation.kill(plan, instance, &text, grace);
        } else if let Some(condemned) = health.and_then(|h| h.condemned.as_ref()) {
            situation.kill(plan, instance, &condemned.message, condemned.grace);
        } else if let (false, ContainerState::Running { .. }) =
            (health.is_none_or(|h| h.hook_begun), &instance.state)
        {
            plan.begin(
                situation.memory,
                Step::PostStart {
                    container: name.clone(),
                    id: instance.id.clone(),
                },
            );
        }
    }
}

/// Gives what runs what its spec asks for by now, where that needs no new instance.
fn resize(situation: &Situation<'_>, plan: &mut Plan) {
    let Some(resizing) = &situation.memory.resizing else {
        return;
    };
    let due = !resizing.kept || in_place(situation.view, situation.observed).is_some();
    if !due || !situation.sandbox_ready() {
        return;
    }
    match &resizing.trouble {
        Some(trouble) if situation.now < trouble.retry_at => plan.wake(trouble.retry_at),
        Some(_) | None => plan.begin(situation.memory, Step::Resize),
    }
}

/// `Some` once the pod can never do anything more: the phase it ends in.
fn verdict(situation: &Situation<'_>) -> Option<&'static str> {
    let init_failed = situation.view.with_role(Role::Init).any(|c| {
        let ended = situation.latest(&c.name).and_then(exit_of);
        ended.is_some_and(|exit| exit.code != 0 && !c.restart_policy.restarts(exit.code))
    });
    let initialised = is_initialised(situation);
    if init_failed && !initialised {
        return Some("Failed");
    }
    let mut regular = situation.view.with_role(Role::Regular);
    let worst = regular.try_fold(0, |worst, container| {
        Some(worst | final_code(situation, container)?)
    });
    match worst {
        Some(0) => Some("Succeeded"),
        Some(_) => Some("Failed"),
        None => situation.was_cut_off().then_some("Failed"),
    }
}

/// The exit code of a container that must not run again.
fn final_code(situation: &Situation<'_>, container: &ContainerView) -> Option<i32> {
    if let Some(known) = situation.memory.finals.exits.get(&container.name) {
        return Some(known.exit.code);
    }
    let instance = situation.latest(&container.name)?;
    let exit = exit_of(instance)?;
    let replaced = is_replaced(situation, container, instance);
    (!replaced && !container.restart_policy.restarts(exit.code)).then_some(exit.code)
}

/// The instance was ended because its definition changed: whatever the policy says, the new
/// definition gets its instance.
fn is_replaced(
    situation: &Situation<'_>,
    container: &ContainerView,
    instance: &ContainerObserved,
) -> bool {
    let health = situation.memory.health(&container.name, &instance.id);
    let changed = instance.hash != container.hash || change(container, instance) == Change::Restart;
    changed && health.is_some_and(|h| h.condemned.is_some())
}

/// Stops what still runs, as sidecars do, then makes the end durable.
fn finish(situation: &Situation<'_>, phase: &str, plan: &mut Plan) {
    let deadline = situation.now + situation.view.grace;
    if !stop_all(situation, deadline, plan) {
        // What has ended is told while the rest stops, so it is recorded now.
        return record_final_exits(situation, plan);
    }
    let mut record = with_exits(situation);
    record.phase = Some(final_phase(situation, phase));
    begin_record(situation, record, plan);
}

/// Ends that are final while the pod goes on: durable before they are shown, so that a power cut
/// never runs them twice.
pub(super) fn record_final_exits(situation: &Situation<'_>, plan: &mut Plan) {
    let mut record = with_exits(situation);
    let once = |name: &str| {
        let view = situation.view.container(name)?;
        matches!(view.role, Role::Regular | Role::Ephemeral).then_some(view)
    };
    record
        .exits
        .retain(|name, _| once(name).is_some_and(|view| final_code(situation, view).is_some()));
    begin_record(situation, record, plan);
}

/// Whether init is over in the present sandbox: a regular container has been made in it.
fn is_initialised(situation: &Situation<'_>) -> bool {
    let mut regular = situation.view.with_role(Role::Regular);
    regular.any(|c| situation.current(&c.name).is_some())
}

/// The containers that need an instance now, in order.
fn wanted<'a>(situation: &'a Situation<'_>, plan: &mut Plan) -> Vec<(&'a ContainerView, Start)> {
    let view = situation.view;
    let initialised = is_initialised(situation);
    let mut wanted = Vec::new();
    if !initialised {
        for container in view.containers.iter().filter(|c| is_first(c)) {
            let passed = is_passed(situation, container);
            match init_need(situation, container) {
                Need::Nothing => {}
                Need::Patience if passed => {}
                Need::Patience => return wanted,
                Need::Start(start) => {
                    wanted.push((container, start));
                    if !passed {
                        wait_for_init(situation, plan);
                        return wanted;
                    }
                }
            }
        }
    }
    let beside =
        |c: &&ContainerView| c.role == Role::Regular || c.role == Role::Sidecar && initialised;
    for container in view.containers.iter().filter(beside) {
        if let Need::Start(start) = regular_need(situation, container) {
            wanted.push((container, start));
        }
    }
    wanted
}

fn is_first(container: &ContainerView) -> bool {
    matches!(container.role, Role::Init | Role::Sidecar)
}

/// A sidecar had started once, as what comes after it has begun: if it ends it is restarted beside that.
/// Source: Kubernetes pkg/kubelet/kuberuntime (computeInitContainerActions).
fn is_passed(situation: &Situation<'_>, container: &ContainerView) -> bool {
    let mut first = situation.view.containers.iter().filter(|c| is_first(c));
    container.role == Role::Sidecar
        && first.any(|c| c.index > container.index && situation.current(&c.name).is_some())
}

/// Ephemeral containers that have not been started yet. They ask for no sandbox and need no init:
/// there must be one. Those of before a reboot are not started again.
/// Source: Kubernetes pkg/kubelet/kuberuntime (computePodActions).
fn ephemeral<'a>(situation: &'a Situation<'_>, plan: &mut Plan) -> Vec<(&'a ContainerView, Start)> {
    let mut wanted = Vec::new();
    for container in situation.view.with_role(Role::Ephemeral) {
        let name = &container.name;
        let need = match situation.latest(name) {
            Some(made) if made.state == ContainerState::Created => start_again(situation, made),
            Some(_) => Need::Nothing,
            None if situation.memory.finals.exits.contains_key(name) => Need::Nothing,
            None if situation.memory.container(name).attempt_base > 0 => {
                let text = "it ran before the node was started anew, and is never restarted";
                plan.wait(name, Waiting::new("ContainerStatusUnknown", text));
                Need::Nothing
            }
            None => first_start(situation, name),
        };
        match need {
            Need::Start(start) if situation.sandbox_ready() => wanted.push((container, start)),
            Need::Start(_) | Need::Nothing | Need::Patience => {}
        }
    }
    wanted
}

fn wait_for_init(situation: &Situation<'_>, plan: &mut Plan) {
    for container in situation.view.with_role(Role::Regular) {
        plan.wait(&container.name, Waiting::new("PodInitializing", ""));
    }
}

/// Init containers and sidecars before the pod is initialised.
fn init_need(situation: &Situation<'_>, container: &ContainerView) -> Need {
    let name = &container.name;
    let Some(instance) = situation.current(name) else {
        // An instance of an earlier sandbox does not count: init runs again from the first.
        return match situation.latest(name) {
            Some(old) if is_live(old) => Need::Patience,
            Some(old) => start_at(old.attempt + 1, situation.now),
            None => first_start(situation, name),
        };
    };
    let health = situation.memory.health(name, &instance.id);
    match (&instance.state, container.role) {
        (ContainerState::Created, _) => start_again(situation, instance),
        (ContainerState::Running { .. }, Role::Sidecar) => {
            let up = health.is_some_and(|h| h.started && h.hook_done && h.condemned.is_none());
            if up { Need::Nothing } else { Need::Patience }
        }
        (ContainerState::Running { .. }, _) => Need::Patience,
        (ContainerState::Exited(exit), Role::Init) if exit.code == 0 => Need::Nothing,
        (ContainerState::Exited(exit), _) => {
            if container.restart_policy.restarts(exit.code) {
                restart(situation, container, instance)
            } else {
                Need::Patience
            }
        }
    }
}

/// Regular containers, and sidecars once the pod is initialised.
fn regular_need(situation: &Situation<'_>, container: &ContainerView) -> Need {
    let name = &container.name;
    if situation.memory.finals.exits.contains_key(name) {
        return Need::Nothing;
    }
    let Some(instance) = situation.latest(name) else {
        return first_start(situation, name);
    };
    match &instance.state {
        ContainerState::Created => start_again(situation, instance),
        ContainerState::Running { .. } => Need::Nothing,
        ContainerState::Exited(exit) => {
            if is_replaced(situation, container, instance) {
                start_at(instance.attempt + 1, situation.now)
            } else if container.restart_policy.restarts(exit.code) {
                restart(situation, container, instance)
            } else {
                Need::Nothing
            }
        }
    }
}

/// An instance that was made and never ran: its start is under way, was a dead agent's, or hung.
/// The same start is asked for again, which finds what is there.
fn start_again(situation: &Situation<'_>, instance: &ContainerObserved) -> Need {
    let target = Target::Container(instance.name.clone());
    let failed = situation.memory.container(&instance.name).trouble.is_some();
    let due = instance.created.boot + START_PATIENCE;
    if situation.memory.is_busy(&target) || !(failed || situation.now >= due) {
        return Need::Patience;
    }
    start_at(instance.attempt, situation.now)
}

/// Starts of an earlier agent that may still end by themselves.
fn wait_for_starts(situation: &Situation<'_>, plan: &mut Plan) {
    for instance in &situation.observed.containers {
        let due = instance.created.boot + START_PATIENCE;
        if instance.state == ContainerState::Created && situation.now < due {
            plan.wake(due);
        }
    }
}

fn first_start(situation: &Situation<'_>, name: &str) -> Need {
    start_at(situation.memory.container(name).attempt_base, situation.now)
}

fn start_at(attempt: u32, not_before: BootTime) -> Need {
    Need::Start(Start {
        attempt,
        not_before,
        after: None,
    })
}

fn restart(
    situation: &Situation<'_>,
    container: &ContainerView,
    instance: &ContainerObserved,
) -> Need {
    let exit = exit_of(instance).expect("only ended instances are restarted");
    let failed = exit.finished.boot;
    let back_off = situation.memory.back_off(&container.name, &container.hash);
    Need::Start(Start {
        attempt: instance.attempt + 1,
        not_before: back_off.ready_at(failed),
        after: Some(failed),
    })
}

fn prepare_volumes(situation: &Situation<'_>, plan: &mut Plan, needed: bool) {
    let memory = situation.memory;
    let renew_at = memory.tokens.renew_at();
    let stale = memory.volumes_stale || renew_at.is_some_and(|at| at <= situation.now);
    let running = || situation.observed.containers.iter().any(is_live);
    match &memory.volumes {
        Volumes::Ready if !stale => {
            if let Some(at) = renew_at
                && (needed || running())
            {
                plan.wake(at);
            }
        }
        Volumes::Ready | Volumes::Unset => {
            if let Some((at, _)) = memory.refresh_retry
                && situation.now < at
            {
                return plan.wake(at);
            }
            if needed || running() {
                plan.begin(memory, Step::SetUpVolumes);
            }
        }
        Volumes::Failed(trouble, _) if situation.now < trouble.retry_at => {
            plan.wake(trouble.retry_at);
        }
        Volumes::Failed(..) => plan.begin(memory, Step::SetUpVolumes),
    }
}

/// A pod that never restarts anything gets no second sandbox once a container was made in it, not
/// even if init containers had ended well and the others had not begun: init would run again. What
/// has not begun by then waits until the pod is deleted.
/// Source: Kubernetes pkg/kubelet/kuberuntime (computePodActions).
fn may_be_rebuilt(situation: &Situation<'_>) -> bool {
    let never = situation.view.restart_policy == RestartPolicy::Never;
    let lost = situation.observed.sandbox.is_some() && !situation.sandbox_ready();
    !(never && lost && !situation.observed.containers.is_empty())
}

fn not_rebuilt(situation: &Situation<'_>) -> Waiting {
    let text = "the pod's sandbox is gone, and with restartPolicy Never it gets no new one";
    Waiting {
        message: text.to_owned(),
        ..creating(situation)
    }
}

/// Whether containers can start in the sandbox; begins one if it is needed and not there.
fn prepare_sandbox(situation: &Situation<'_>, plan: &mut Plan, needed: bool) -> Sandbox {
    let memory = situation.memory;
    let observed = situation.observed.sandbox.as_ref();
    let attempt = match observed {
        Some(sandbox) if sandbox.state == SandboxState::Ready => return Sandbox::Ready,
        Some(sandbox) => sandbox.attempt + 1,
        None => 0,
    };
    // The first loss is made good at once; a sandbox that dies again and again is no hot loop.
    let not_before = observed
        .filter(|sandbox| sandbox.attempt > 0)
        .map(|sandbox| sandbox.created.boot + SANDBOX_INTERVAL_MIN);
    let anything_live = situation.observed.containers.iter().any(is_live);
    if !needed || anything_live || situation.is_starting() {
        return Sandbox::Coming;
    }
    if matches!(memory.volumes, Volumes::Failed(..)) {
        return Sandbox::Coming;
    }
    match (&memory.sandbox_trouble, not_before) {
        (Some((trouble, _)), _) if situation.now < trouble.retry_at => plan.wake(trouble.retry_at),
        (_, Some(at)) if situation.now < at => plan.wake(at),
        _ => plan.begin(memory, Step::StartSandbox { attempt }),
    }
    Sandbox::Coming
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sandbox {
    Ready,
    Coming,
}

/// Moves one container towards its next instance: back-off, image, sandbox, start.
fn start(
    situation: &Situation<'_>,
    plan: &mut Plan,
    container: &ContainerView,
    wanted: Start,
    sandbox: Sandbox,
) {
    let memory = situation.memory;
    let name = &container.name;
    let known = memory.container(name);
    if situation.now < wanted.not_before {
        plan.wake(wanted.not_before);
        plan.wait(name, crash_loop(situation, container));
        return;
    }
    if let Some(trouble) = &known.trouble {
        plan.wait(name, Waiting::new(&trouble.reason, &*trouble.message));
        if situation.now < trouble.retry_at {
            plan.wake(trouble.retry_at);
            return;
        }
    } else {
        plan.wait(name, creating(situation));
    }
    if !has_image(situation, plan, container, &known) {
        return;
    }
    if sandbox == Sandbox::Ready && memory.volumes == Volumes::Ready {
        plan.begin(
            memory,
            Step::StartContainer {
                container: name.clone(),
                attempt: wanted.attempt,
                after: wanted.after,
            },
        );
    }
}

fn has_image(
    situation: &Situation<'_>,
    plan: &mut Plan,
    container: &ContainerView,
    known: &ContainerMemory,
) -> bool {
    let name = &container.name;
    let ensure = Step::EnsureImage {
        container: name.clone(),
    };
    match &known.image {
        ImageState::Here(_) => return true,
        ImageState::Unknown => plan.begin(situation.memory, ensure),
        ImageState::Failed(trouble) => {
            plan.wait(name, image_waiting(situation, container, trouble));
            if situation.now < trouble.retry_at {
                plan.wake(trouble.retry_at);
            } else {
                plan.begin(situation.memory, ensure);
            }
        }
    }
    false
}

/// While the next try is under way the last error shows, between tries the back-off.
fn image_waiting(
    situation: &Situation<'_>,
    container: &ContainerView,
    trouble: &Trouble,
) -> Waiting {
    let trying = situation
        .memory
        .is_busy(&Target::Image(container.name.clone()));
    if trying || trouble.reason != "ErrImagePull" {
        return Waiting::new(&trouble.reason, &*trouble.message);
    }
    let image = &container.image;
    let message = format!(
        "Back-off pulling image {image:?}: {}: {}",
        trouble.reason, trouble.message
    );
    Waiting::new("ImagePullBackOff", message)
}

fn creating(situation: &Situation<'_>) -> Waiting {
    let reason = if situation.view.has_init() {
        "PodInitializing"
    } else {
        "ContainerCreating"
    };
    Waiting::new(reason, "")
}

fn crash_loop(situation: &Situation<'_>, container: &ContainerView) -> Waiting {
    let back_off = situation.memory.back_off(&container.name, &container.hash);
    let key = &situation.view.key;
    let message = format!(
        "back-off {} restarting failed container={} pod={}_{}({})",
        go_duration(back_off.delay().as_secs()),
        container.name,
        key.name,
        key.namespace,
        situation.view.uid
    );
    Waiting::new("CrashLoopBackOff", message)
}

/// Whole seconds as Go prints a duration: `40s`, `2m40s`, `5m0s`.
fn go_duration(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, rest) => format!("{rest}s"),
        (minutes, rest) => format!("{minutes}m{rest}s"),
    }
}
