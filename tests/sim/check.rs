//! What must be true once nothing goes wrong any more.
//!
//! Expectations come from the manifests and from the kernel's truth, never from the node's own
//! words; then the node's words are held against them.

use std::collections::BTreeMap;

use lowtide::world::{Area, ContainerState, Uid};
use serde_json::Value;

use crate::judge::Judge;
use crate::kernel::Pod;
use crate::run::Run;
use crate::spec::{Desired, Restart, Role};

type Verdict = Result<(), String>;

/// All convergence checks, the first failure named.
pub fn converged(run: &Run) -> Verdict {
    let desired = run.host.judge.desired().unwrap_or_default();
    let statuses: BTreeMap<Uid, Value> = run.node.statuses().into_iter().collect();
    names(run, &desired)?;
    no_leftovers(run, &desired)?;
    let kernel = run.host.kernel.borrow();
    for pod in desired.iter() {
        let nothing = Pod::default();
        let truth = kernel.pods.get(&pod.uid).unwrap_or(&nothing);
        let status = statuses.get(&pod.uid).unwrap_or(&Value::Null);
        let turned_away = status["reason"]
            .as_str()
            .is_some_and(|reason| reason.starts_with("OutOf"));
        if turned_away && pod.is_remote && !run.host.judge.has_begun(&pod.uid) {
            // There is no room for it, and another will be made elsewhere.
            continue;
        }
        expect(&run.host.judge, pod, truth, status)
            .map_err(|error| format!("pod {} ({}): {error}; status {status}", pod.name, pod.uid))?;
    }
    Ok(())
}

/// Exactly the pods of the manifests are there, and none of them is on its way out.
fn names(run: &Run, desired: &[Desired]) -> Verdict {
    // Those of a cluster are checked elsewhere.
    let own = desired.iter().filter(|pod| !pod.is_remote);
    let mut there: Vec<&str> = own.map(|pod| pod.name.as_str()).collect();
    there.sort_unstable();
    let wanted = run.manifests.pod_names();
    let same = there.len() == wanted.len()
        && there.iter().zip(&wanted).all(|(there, wanted)| {
            *there == wanted
                || there
                    .strip_prefix(wanted.as_str())
                    .is_some_and(|r| r.starts_with('-'))
        });
    if !same {
        return Err(format!("manifests want {wanted:?}, the node has {there:?}"));
    }
    match desired.iter().find(|pod| pod.deleting) {
        Some(pod) => Err(format!("{} is still being deleted", pod.name)),
        None => Ok(()),
    }
}

fn no_leftovers(run: &Run, desired: &[Desired]) -> Verdict {
    let wanted = |uid: &str| desired.iter().any(|pod| pod.uid.as_str() == uid);
    let kernel = run.host.kernel.borrow();
    if let Some(uid) = kernel.pods.keys().find(|uid| !wanted(uid.as_str())) {
        return Err(format!("{uid} still has something in the kernel"));
    }
    let mounted = run.host.mounted.borrow();
    if let Some(uid) = mounted
        .directories()
        .iter()
        .find(|uid| !wanted(uid.as_str()))
    {
        return Err(format!("{uid} still has volumes"));
    }
    let files = run.host.files.borrow();
    for area in [Area::Root, Area::Run] {
        let records = files.list(area, "pods");
        if let Some(uid) = records.iter().find(|uid| !wanted(uid)) {
            return Err(format!("{uid} still has records in {area:?}"));
        }
    }
    Ok(())
}

/// The last exit of each regular container, if all have ended for good.
fn outcome(pod: &Desired, truth: &Pod) -> Option<&'static str> {
    let seen = truth.observe();
    if truth.containers.is_empty() || !pod.is_over(&seen) {
        return None;
    }
    let mut codes = Vec::new();
    for spec in pod.containers.iter().filter(|c| c.role != Role::Sidecar) {
        let mut instances = seen.containers.iter().rev();
        let last = instances.find(|c| c.name == spec.name);
        if let Some(ContainerState::Exited(exit)) = last.map(|c| &c.state) {
            codes.push(exit.code);
        }
    }
    let good = codes.iter().all(|code| *code == 0);
    Some(if good { "Succeeded" } else { "Failed" })
}

fn expect(judge: &Judge, pod: &Desired, truth: &Pod, status: &Value) -> Verdict {
    let phase = status["phase"].as_str().unwrap_or("(none)");
    if matches!(phase, "Succeeded" | "Failed") {
        return match pod.restart {
            Restart::Always if pod.active_deadline.is_none() => {
                Err(format!("{phase} with restartPolicy Always"))
            }
            _ if truth.live().next().is_some() => Err(format!("{phase} and a container lives")),
            _ if truth.sandbox.is_some() => Err(format!("{phase} and its sandbox is there")),
            Restart::Always | Restart::OnFailure | Restart::Never => Ok(()),
        };
    }
    if let Some(limit) = pod.active_deadline {
        return Err(format!("{phase} long after {limit:?}"));
    }
    if let Some(outcome) = outcome(pod, truth) {
        return Err(format!("all is done ({outcome}) and the phase is {phase}"));
    }
    // Nothing of it may ever run again, and not all has run: that is upstream's rule.
    let stuck = pod.restart == Restart::Never && !truth.containers.is_empty();
    if truth.ready_sandbox().is_none() && stuck {
        return Ok(());
    }
    if truth.ready_sandbox().is_none() {
        return Err(format!("{phase} without a ready sandbox"));
    }
    running(judge, pod, truth, status)
}

/// Containers whose script runs on do run; others are in their back-off or about to be.
fn running(judge: &Judge, pod: &Desired, truth: &Pod, status: &Value) -> Verdict {
    let init_fails = pod.containers.iter().any(|c| {
        c.role == Role::Init
            && c.command.first().is_some_and(|w| w == "exit")
            && c.command[1] != "0"
    });
    for spec in pod.containers.iter().filter(|c| c.role == Role::Regular) {
        let live = truth.live().find(|c| c.config.name == spec.name);
        let steady = spec.command.first().is_some_and(|word| word == "forever");
        // Seen now, or told before a reboot.
        let known = truth.containers.iter().any(|c| c.config.name == spec.name)
            || judge.has_told_the_end(pod, &spec.name, &spec.image);
        let ended_well_before = known && pod.restart != Restart::Always;
        if steady && live.is_none() && !init_fails && !spec.has_probe && !ended_well_before {
            return Err(format!("{} does not run", spec.name));
        }
        if steady && !spec.has_probe && live.is_some_and(|c| c.is_running()) {
            told_rightly(&spec.name, live.map(|c| c.config.attempt), status)?;
        }
    }
    Ok(())
}

/// What the status says of a steadily running container is the truth.
fn told_rightly(name: &str, attempt: Option<u32>, status: &Value) -> Verdict {
    let statuses = status["containerStatuses"].as_array().into_iter().flatten();
    let mut mine = statuses.filter(|status| status["name"] == name);
    let Some(told) = mine.next() else {
        return Err(format!("the status does not tell of {name}"));
    };
    if !told["state"]["running"].is_object() {
        return Err(format!("{name} runs, the status says {}", told["state"]));
    }
    let count = told["restartCount"].as_u64();
    match count == attempt.map(u64::from) {
        true => Ok(()),
        false => Err(format!(
            "{name}: restart count {count:?}, instance {attempt:?}"
        )),
    }
}

/// Whether nothing moves by itself: no crash loops, no containers that come and go.
pub fn is_still(run: &Run) -> bool {
    let desired = run.host.judge.desired().unwrap_or_default();
    let kernel = run.host.kernel.borrow();
    desired.iter().all(|pod| {
        let finished = match kernel.pods.get(&pod.uid) {
            Some(truth) => pod.is_over(&truth.observe()) && truth.live().next().is_none(),
            None => true,
        } || run.host.judge.was_told_over(&pod.uid);
        let steady = pod.containers.iter().all(|spec| {
            let forever = spec.command.first().is_some_and(|word| word == "forever");
            // A probe may restart it at any time.
            let healthy = !spec.has_probe;
            let done =
                spec.role == Role::Init && spec.command.get(1).is_some_and(|code| code == "0");
            (forever && healthy) || done
        });
        let running = kernel.pods.get(&pod.uid).is_some_and(|truth| {
            let regular = pod
                .containers
                .iter()
                .filter(|spec| spec.role == Role::Regular);
            regular.count() <= truth.containers.iter().filter(|c| c.is_running()).count()
        });
        finished || (steady && running)
    })
}

/// Statuses without what is allowed to differ: times, and the order of nothing.
pub fn derived(run: &Run) -> BTreeMap<Uid, Value> {
    let statuses = run.node.statuses().into_iter();
    statuses
        .map(|(uid, status)| (uid, without_times(status)))
        .collect()
}

fn without_times(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_time = |name: &str| name.ends_with("Time") || name.ends_with("At");
            let kept = fields.into_iter().filter(|(name, _)| !is_time(name));
            kept.map(|(name, field)| (name, without_times(field)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(without_times).collect(),
        other => other,
    }
}
