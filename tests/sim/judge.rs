//! The safety rules, checked at the very step that would break them.
//!
//! | rule | broken when |
//! |---|---|
//! | one instance | a container is created while another instance of its name lives |
//! | desired only | something starts for a pod that nobody wants |
//! | sandbox first | a container starts where the node *sees* no ready sandbox, or without its volumes |
//! | init in order | a container starts before the init containers before it are done |
//! | once is once | a container whose exit was final, or a pod whose end was published, starts again |
//! | never is never | after a reboot something starts again of a pod that never restarts, unless a manifest has it |
//! | one of a name | a pod of ours starts while another UID of the same name still lives |
//! | no murder | a running container is stopped without a reason of Kubernetes', or resized so where in place will do |
//! | no heat | a container restarts without back-off |
//! | clean hands | records or volumes are removed under living containers |
//!
//! A rule speaks of what the node could know: a step that raced with a fault is no crime. The first
//! broken rule ends the run.

mod health;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use lowtide::world::{
    ContainerConfig, ContainerId, ContainerState, ExecRequest, MountSource, PodObserved,
    SandboxConfig, SandboxState, Uid,
};

use crate::host::Host;
use crate::kernel::Container;
use crate::replaced::Replaced;
use crate::spec::{ContainerSpec, Desired, Restart, Role};
use crate::timeline::Nanos;
use crate::trace::Trace;

/// Starts of one container within `HEAT_WINDOW` that back-off allows: 0, 0, 10 s, 20 s …
const HEAT_STARTS_MAX: usize = 4;
const HEAT_WINDOW: Nanos = 20_000_000_000;
/// So long may a step that was decided before a manifest went still begin.
const LAST_WISH: Nanos = 1_000_000_000;

/// What is known of one pod beyond what the kernel still shows.
#[derive(Default)]
struct Past {
    /// At some time since the pod began nobody wanted it, so it may be ended for ever.
    was_unwanted: bool,
    /// When the node first knew the pod: its active deadline cannot be over sooner than counted
    /// from here.
    first_wanted: Option<Nanos>,
    /// Containers that were seen to fail a probe or a hook: instances that may be ended.
    condemned: BTreeSet<ContainerId>,
    /// In the present boot: final exits by container, init containers that are done by sandbox.
    exits: BTreeMap<String, (i32, String)>,
    done: BTreeSet<(String, u64)>,
    /// A sandbox of this pod died in this boot.
    lost_sandbox: bool,
    /// Something of it was made at some time: it has its room.
    has_begun: bool,
    /// Containers that had an instance in an earlier boot.
    ran_before: BTreeSet<String>,
    starts: BTreeMap<(String, String), Vec<Nanos>>,
    attempts: BTreeMap<String, u32>,
    /// Published as ended, or its final exits were: holds over power cuts.
    published_end: Option<String>,
    published_exits: BTreeSet<String>,
}

/// So long after its end a command may still be sent to a container: no step can take it back.
const JUST_ENDED: Duration = Duration::from_secs(3);

/// Where hostNetwork pods listen.
pub const HOST_ADDRESS: &str = "192.0.2.1";

type Wishes = Rc<dyn Fn() -> Option<Rc<Vec<Desired>>>>;

/// What else is known of pods that come from elsewhere.
pub trait Oath {
    /// What must be true of a pod of which something starts. Errors: what is not.
    fn may_start(&self, host: &Host, uid: &Uid) -> Result<(), String>;
    /// Whether it may be ended for no reason of its own.
    fn may_end(&self, uid: &Uid) -> bool;
}

pub struct Judge {
    oath: RefCell<Option<Rc<dyn Oath>>>,
    trace: Rc<Trace>,
    verdict: RefCell<Option<String>>,
    wishes: RefCell<Option<Wishes>>,
    pasts: RefCell<BTreeMap<Uid, Past>>,
    replaced: Replaced,
    /// When each pod was last wanted, and as what.
    wishes_seen: RefCell<BTreeMap<Uid, (Nanos, Desired)>>,
}

impl Judge {
    pub fn new(trace: Rc<Trace>) -> Judge {
        Judge {
            oath: RefCell::default(),
            trace,
            verdict: RefCell::default(),
            wishes: RefCell::default(),
            pasts: RefCell::default(),
            replaced: Replaced::default(),
            wishes_seen: RefCell::default(),
        }
    }

    /// Where to ask which pods are wanted now. `None` while no agent runs.
    pub fn wishes(&self, wishes: Option<Wishes>) {
        *self.wishes.borrow_mut() = wishes;
    }

    pub fn swear(&self, oath: Rc<dyn Oath>) {
        *self.oath.borrow_mut() = Some(oath);
    }

    /// Asks for what else must be true of a pod that starts.
    fn test_oath(&self, host: &Host, uid: &Uid) {
        let oath = self.oath.borrow().clone();
        if let Some(Err(crime)) = oath.map(|oath| oath.may_start(host, uid)) {
            self.condemn(crime);
        }
    }

    pub fn verdict(&self) -> Option<String> {
        self.verdict.borrow().clone()
    }

    pub fn condemn(&self, crime: String) {
        if self.wishes.borrow().is_none() {
            // No agent lives: these are the last words of one that was killed.
            return;
        }
        self.trace.note(|| format!("BROKEN: {crime}"));
        self.verdict.borrow_mut().get_or_insert(crime);
    }

    fn past<T>(&self, uid: &Uid, change: impl FnOnce(&mut Past) -> T) -> T {
        change(self.pasts.borrow_mut().entry(uid.clone()).or_default())
    }

    /// The node has let go of the pod, with all that it knew of it.
    pub fn forget(&self, uid: &str) {
        let mut pasts = self.pasts.borrow_mut();
        pasts.retain(|known, _| known.as_str() != uid);
    }

    /// The manifest of this name is another now.
    pub fn is_replaced(&self, name: &str) {
        let seen = self.wishes_seen.borrow();
        self.replaced.note(name, seen.values().map(|(_, pod)| pod));
    }

    /// Whether the node has published an end of the pod.
    pub fn was_told_over(&self, uid: &Uid) -> bool {
        self.past(uid, |past| past.published_end.is_some())
    }

    pub fn has_begun(&self, uid: &Uid) -> bool {
        self.past(uid, |past| past.has_begun)
    }

    pub fn desired(&self) -> Option<Rc<Vec<Desired>>> {
        let wishes = self.wishes.borrow().clone();
        wishes?()
    }

    fn wanted(&self, uid: &Uid) -> Option<Desired> {
        self.desired()?.iter().find(|pod| pod.uid == *uid).cloned()
    }

    /// The pod if something of it may start: wanted now, or until a moment ago.
    fn may_start(&self, host: &Host, uid: &Uid) -> Option<Desired> {
        self.look_around(host);
        let seen = self.wishes_seen.borrow();
        let (last, pod) = seen.get(uid)?;
        (host.timeline.now() - last <= LAST_WISH).then(|| pod.clone())
    }

    /// Of a cluster: those of one name overlap, as upstream's do, and have nothing to do with ours.
    fn is_remote(&self, uid: &Uid) -> bool {
        let seen = self.wishes_seen.borrow();
        seen.get(uid).is_some_and(|(_, pod)| pod.is_remote)
    }

    /// Remembers which pods are wanted at this moment, and which that exist are not.
    pub fn look_around(&self, host: &Host) {
        let Some(desired) = self.desired() else {
            return;
        };
        for pod in desired.iter().filter(|pod| !pod.deleting) {
            let now = host.timeline.now();
            self.past(&pod.uid, |past| *past.first_wanted.get_or_insert(now));
            let seen = (host.timeline.now(), pod.clone());
            self.wishes_seen.borrow_mut().insert(pod.uid.clone(), seen);
        }
        let kernel = host.kernel.borrow();
        let gone = self.replaced.gone(&desired, &kernel);
        gone.iter().for_each(|uid| self.forget(uid.as_str()));
        for (uid, truth) in &kernel.pods {
            let wanted = desired.iter().find(|pod| pod.uid == *uid && !pod.deleting);
            let Some(pod) = wanted else {
                self.past(uid, |past| past.was_unwanted = true);
                continue;
            };
            for one in truth.live() {
                if pod.restarts_for_limits(&one.config.name, &one.config.resources) {
                    self.past(uid, |past| past.condemned.insert(one.id.clone()));
                }
            }
        }
    }

    /// The node has published this: from now on it must hold.
    pub fn published(&self, uid: &Uid, phase: &str, final_exits: &[String]) {
        self.past(uid, |past| {
            if phase.is_empty() {
                // Not told yet since the store was opened: no claim.
            } else if matches!(phase, "Succeeded" | "Failed") {
                past.published_end.get_or_insert(phase.to_owned());
            } else if let Some(end) = &past.published_end {
                let crime = format!("pod {uid} was published as {end} and now as {phase}");
                self.condemn(crime);
            }
            past.published_exits.extend(final_exits.iter().cloned());
        });
    }

    pub fn rebooted(&self) {
        for past in self.pasts.borrow_mut().values_mut() {
            past.exits.clear();
            past.done.clear();
            past.starts.clear();
            let ran = std::mem::take(&mut past.attempts);
            past.ran_before.extend(ran.into_keys());
            past.lost_sandbox = false;
        }
    }

    pub fn starts_sandbox(&self, host: &Host, config: &SandboxConfig) {
        let uid = &config.uid;
        let what = format!("sandbox {}#{} ({uid})", config.name, config.attempt);
        self.test_oath(host, uid);
        if self.may_start(host, uid).is_none() {
            self.condemn(format!("{what} starts, which nobody wants"));
        }
        if let Some(end) = self.past(uid, |past| past.published_end.clone()) {
            self.condemn(format!("{what} starts though the pod is {end}"));
        }
        let kernel = host.kernel.borrow();
        let seen = kernel.seen(uid).sandbox;
        if seen.is_some_and(|s| s.state == SandboxState::Ready && s.attempt != config.attempt) {
            self.condemn(format!("{what} starts beside a ready one"));
        }
        for (other, pod) in &kernel.pods {
            let twin = pod.sandbox.as_ref().is_some_and(|sandbox| {
                other != uid
                    && !self.is_remote(uid)
                    && !self.is_remote(other)
                    && sandbox.config.name == config.name
                    && sandbox.config.namespace == config.namespace
                    && (sandbox.state == SandboxState::Ready || pod.live().next().is_some())
            });
            if twin {
                self.condemn(format!(
                    "{what} starts before its predecessor {other} is gone"
                ));
            }
        }
    }

    pub fn starts_container(&self, host: &Host, config: &ContainerConfig) {
        let uid = &config.uid;
        let what = format!(
            "{}/{}#{} ({uid})",
            config.pod_name, config.name, config.attempt
        );
        self.test_oath(host, uid);
        let Some(pod) = self.may_start(host, uid) else {
            return self.condemn(format!("{what} starts, which nobody wants"));
        };
        let seen = host.kernel.borrow().seen(uid);
        let ready = seen
            .sandbox
            .as_ref()
            .is_some_and(|s| s.state == SandboxState::Ready);
        if !ready {
            self.condemn(format!("{what} starts where no ready sandbox is seen"));
        }
        // The same number again is how a start that hung is repeated.
        let live = seen.containers.iter().find(|c| {
            let repeated = c.attempt == config.attempt && c.state == ContainerState::Created;
            c.name == config.name && !repeated && !matches!(c.state, ContainerState::Exited(_))
        });
        if let Some(live) = live {
            let attempt = live.attempt;
            self.condemn(format!(
                "{what} starts while instance #{attempt} is seen alive"
            ));
        }
        for mount in &config.mounts {
            if let MountSource::Volume { name, .. } = &mount.source
                && !host.mounted.borrow().has(uid, name)
            {
                self.condemn(format!("{what} starts before its volume {name}"));
            }
        }
        self.check_once(&what, config, &pod);
    }

    /// What was final stays final.
    fn check_once(&self, what: &str, config: &ContainerConfig, pod: &Desired) {
        self.past(&config.uid, |past| {
            if let Some(end) = &past.published_end {
                self.condemn(format!("{what} starts though the pod is {end}"));
            }
            if past
                .published_exits
                .contains(&final_exit(&config.name, &config.image))
            {
                self.condemn(format!("{what} starts though its final exit was published"));
            }
            if pod.restart == Restart::Never
                && !pod.is_static
                && past.ran_before.contains(&config.name)
            {
                self.condemn(format!("{what} starts again after a reboot"));
            }
            // An exit of another image is no end: the definition changed.
            let exit = past.exits.get(&config.name);
            if let Some((code, image)) = exit
                && *image == config.image
                && pod.role(&config.name) == Some(Role::Regular)
                && !pod.restarts(&config.name, *code)
            {
                self.condemn(format!("{what} starts again after its final exit {code}"));
            }
            if let Some(highest) = past.attempts.get(&config.name)
                && config.attempt < *highest
            {
                self.condemn(format!("{what} starts below an earlier number {highest}"));
            }
        });
    }

    /// The shim has made the record; `other` is an instance that lives beside it.
    pub fn created(&self, host: &Host, config: &ContainerConfig, other: Option<u32>, sandbox: u64) {
        let uid = &config.uid;
        let what = format!(
            "{}/{}#{} ({uid})",
            config.pod_name, config.name, config.attempt
        );
        if let Some(attempt) = other {
            self.condemn(format!("{what} lives beside its instance #{attempt}"));
        }
        let last = || Some(self.wishes_seen.borrow().get(uid)?.1.clone());
        let (pod, now) = (self.wanted(uid).or_else(last), host.timeline.now());
        self.past(uid, |past| {
            past.has_begun = true;
            past.attempts.insert(config.name.clone(), config.attempt);
            let definition = (config.name.clone(), config.image.clone());
            let starts = past.starts.entry(definition).or_default();
            starts.retain(|at| now - at < HEAT_WINDOW);
            starts.push(now);
            if starts.len() > HEAT_STARTS_MAX {
                self.condemn(format!("{what} restarts without back-off"));
            }
            let before = pod.iter().flat_map(|pod| pod.init_before(&config.name));
            for init in before {
                if !past.done.contains(&(init.clone(), sandbox)) {
                    self.condemn(format!(
                        "{what} starts before init container {init} is done"
                    ));
                }
            }
            if pod.as_ref().and_then(|pod| pod.role(&config.name)) == Some(Role::Sidecar) {
                past.done.insert((config.name.clone(), sandbox));
            }
        });
    }

    pub fn ended(&self, host: &Host, config: &ContainerConfig, code: i32) {
        let sandbox = {
            let kernel = host.kernel.borrow();
            let pod = kernel.pods.get(&config.uid);
            let container = pod.and_then(|pod| {
                let mut all = pod.containers.iter();
                all.find(|c| c.config.name == config.name && c.config.attempt == config.attempt)
            });
            container.map(|c| c.sandbox)
        };
        self.past(&config.uid, |past| {
            let exit = (code, config.image.clone());
            past.exits.insert(config.name.clone(), exit);
            if code == 0
                && let Some(sandbox) = sandbox
            {
                past.done.insert((config.name.clone(), sandbox));
            }
        });
    }

    pub fn lost_sandbox(&self, uid: &Uid) {
        self.past(uid, |past| {
            past.lost_sandbox = true;
            // Starts in the sandbox that died are no crash loop.
            past.starts.clear();
        });
    }

    /// A stop or a kill is asked for: somebody must have a reason.
    pub fn ends_container(&self, host: &Host, uid: &Uid, id: &ContainerId, how: &str) {
        self.look_around(host);
        let seen = host.kernel.borrow().seen(uid);
        let Some(container) = seen.containers.iter().find(|c| c.id == *id) else {
            return;
        };
        if !matches!(container.state, ContainerState::Running { .. }) {
            return;
        }
        let pod = self.wanted(uid);
        let mut unwanted =
            pod.as_ref().is_none_or(|pod| pod.deleting) || self.past(uid, |past| past.was_unwanted);
        if let Some(oath) = &*self.oath.borrow()
            && self.is_remote(uid)
        {
            unwanted &= oath.may_end(uid);
        }
        let limit = pod.as_ref().and_then(|pod| pod.active_deadline);
        let now = host.timeline.now();
        // Over a reboot only wall time goes on, right or wrong.
        let doubtful = limit.is_some() && host.boot() > 0 && host.timeline.wall_was_set();
        let evicted = host.gauges.borrow().may_evict(pod.as_ref());
        let reason = self.past(uid, |past| {
            let overdue = limit
                .zip(past.first_wanted)
                .is_some_and(|(limit, from)| now - from >= limit.as_nanos() as Nanos);
            overdue
                || doubtful
                || evicted
                || unwanted
                || past.lost_sandbox
                || past.condemned.contains(id)
                || past.published_end.is_some()
        });
        let changed = pod.as_ref().is_some_and(|pod| {
            // Final exits from before a power cut are known from the records only.
            let mut rest = pod.clone();
            self.past(uid, |past| {
                let told = |c: &ContainerSpec| final_exit(&c.name, &c.image);
                rest.containers
                    .retain(|c| !past.published_exits.contains(&told(c)));
            });
            pod.was_changed(&container.name, &container.image) || rest.is_over(&seen)
        });
        if !reason && !changed {
            let (name, attempt) = (&container.name, container.attempt);
            self.condemn(format!("{how} of {uid} {name}#{attempt} without a reason"));
        }
    }

    pub fn stops_sandbox(&self, host: &Host, uid: &Uid) {
        let kernel = host.kernel.borrow();
        let seen = kernel.seen(uid);
        let pod = kernel.pods.get(uid);
        let unasked = |c: &&Container| {
            c.is_running() && c.stop_asked.is_none() && is_seen_running(&seen, &c.id)
        };
        if let Some(container) = pod.and_then(|pod| pod.live().find(unasked)) {
            let name = &container.config.name;
            self.condemn(format!(
                "sandbox of {uid} stops under {name}, never asked to stop"
            ));
        }
    }

    pub fn removes_pod(&self, host: &Host, uid: &Uid) {
        let kernel = host.kernel.borrow();
        let seen = kernel.seen(uid);
        if let Some(c) = seen
            .containers
            .iter()
            .find(|c| is_seen_running(&seen, &c.id))
        {
            let name = &c.name;
            self.condemn(format!(
                "records of {uid} are removed under its living {name}"
            ));
        }
    }

    /// Numbers rise so that no log is written twice; without logs a pod of the same UID is a new one.
    pub fn logs_removed(&self, uid: &Uid) {
        self.past(uid, |past| past.attempts.clear());
    }

    pub fn volumes_torn_down(&self, host: &Host, uid: &Uid) {
        let kernel = host.kernel.borrow();
        let live = kernel.pods.get(uid).and_then(|pod| pod.live().next());
        if let Some(container) = live {
            let name = &container.config.name;
            self.condemn(format!(
                "volumes of {uid} are torn down under its living {name}"
            ));
        }
    }

    pub fn removes_container(&self, host: &Host, uid: &Uid, id: &ContainerId) {
        let seen = host.kernel.borrow().seen(uid);
        let live = |c: &&lowtide::world::ContainerObserved| {
            c.id == *id && !matches!(c.state, ContainerState::Exited(_))
        };
        if let Some(container) = seen.containers.iter().find(live) {
            let name = &container.name;
            self.condemn(format!(
                "record of {uid} {name} is removed while it is seen alive"
            ));
        }
    }

    pub fn executes(&self, host: &Host, request: &ExecRequest) {
        self.hook_begins(request);
        let seen = host.kernel.borrow().seen(&request.uid);
        let now = host.timeline.since_boot();
        let just_ended = seen.containers.iter().any(|c| match &c.state {
            ContainerState::Exited(exit) => {
                c.id == request.container && now.since(exit.finished.boot) < JUST_ENDED
            }
            ContainerState::Created | ContainerState::Running { .. } => false,
        });
        if !just_ended && !is_seen_running(&seen, &request.container) {
            let command = &request.command;
            self.condemn(format!(
                "exec {command:?} in a container of {} that is not seen running",
                request.uid
            ));
        }
    }

    /// A postStart hook that does not go well ends its container, whatever goes wrong with it.
    fn hook_begins(&self, request: &ExecRequest) {
        if request
            .command
            .get(1)
            .is_some_and(|hook| hook == "postStart")
        {
            self.past(&request.uid, |past| {
                past.condemned.insert(request.container.clone())
            });
        }
    }
}

fn is_seen_running(seen: &PodObserved, id: &ContainerId) -> bool {
    let mut all = seen.containers.iter();
    all.any(|c| c.id == *id && matches!(c.state, ContainerState::Running { .. }))
}

/// How a published final exit is remembered: a container of another image is another one.
pub fn final_exit(name: &str, image: &str) -> String {
    format!("{name} of {image}")
}
