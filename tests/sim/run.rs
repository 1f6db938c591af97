//! One seed from the first boot to the last check.
//!
//! ```text
//!   storm: edits, crashes, power cuts, faults ──► calm: nothing more goes wrong ──► checks, litmus
//!          safety rules hold at every step             must converge
//! ```

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use async_executor::LocalExecutor;
use jiff::{SignedDuration, Timestamp};
use lowtide::registry::Reader;
use lowtide::world::{ContainerId, SandboxState, Uid};

use crate::check;
use crate::host::{DiskMode, Faults, Host};
use crate::images::Origin;
use crate::manifests::{Features, IMAGES, Manifests};
use crate::random::Stream;
use crate::runtime::{end_container, show};
use crate::spec::Desired;
use crate::timeline::Nanos;
use crate::trace::{Tracing, last_panic, watch_panics};

/// Polls without time moving: nothing that makes progress needs so many.
const POLLS_AT_ONE_MOMENT_MAX: u64 = 50_000;
/// Polls within one virtual minute.
const POLLS_A_MINUTE_MAX: u64 = 200_000;
/// Kinds of strikes; see `strike`.
const STRIKES: u64 = 15;
/// Those before need no store and no API.
const STRIKES_PLAIN: u64 = 12;
const MINUTE: Nanos = 60_000_000_000;
/// Two full back-offs (300 s), a hanging step (120 s), volumes (123 s) and then some.
pub const CALM: Duration = Duration::from_secs(1500);
/// What an idle node does in the last minutes is counted.
const IDLE: Duration = Duration::from_secs(300);

pub type Executor = LocalExecutor<'static>;

/// What else there is in the world, beside the node and its machine.
pub trait Beside {
    /// One poll of something that can go on. False if nothing can.
    fn tick(&self) -> bool;
    /// Looks at everything while nobody moves.
    fn look(&self, host: &Host);
}

/// A node under test. Everything that must outlive the agent is the implementation's own disk.
pub trait Node {
    fn features(&self) -> Features;
    /// Starts an agent's tasks; the old executor is gone.
    fn start(&mut self, host: &Rc<Host>, secrets: Stream, executor: &Rc<Executor>);
    /// The agent is killed: cancels its tasks.
    fn died(&mut self);
    /// Power was cut; the agent is dead already.
    fn power_cut(&mut self, luck: &Stream);
    /// The manifest directory is another.
    fn feed(&mut self, manifests: &Manifests);
    /// Pods that the node has accepted; nothing while it does not know yet.
    fn desired(&self) -> Rc<dyn Fn() -> Option<Rc<Vec<Desired>>>>;
    /// Changes whenever `desired` or `statuses` may have changed.
    fn version(&self) -> u64;
    /// Published statuses by UID.
    fn statuses(&self) -> Vec<(Uid, serde_json::Value)>;
    /// What the node holds, while an agent runs that has one.
    fn reader(&self) -> Option<Reader> {
        None
    }
    /// Erases every published status, while no agent runs the pods.
    fn erase_statuses(&mut self);
    /// Writes of the store fail with this from now on; `None` heals.
    fn fail_store(&mut self, failure: Option<io::ErrorKind>);
    /// An API client writes something; in its own time.
    fn write_objects(&mut self, luck: Stream, executor: &Rc<Executor>);
    /// Whether all that clients were promised is there.
    fn keeps_promises(&self) -> Result<(), String>;
    /// Bytes or transactions written to the store so far.
    fn store_writes(&self) -> u64;
}

#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub what: String,
    pub trace: Vec<String>,
}

pub struct Run {
    pub host: Rc<Host>,
    pub node: Box<dyn Node>,
    pub manifests: Manifests,
    pub beside: Option<Rc<dyn Beside>>,
    seed: Stream,
    pub luck: Stream,
    turns: Stream,
    executor: Rc<Executor>,
    moment: RefCell<(Nanos, u64)>,
    minute: RefCell<(Nanos, u64)>,
    version: Cell<u64>,
    /// The store has failed in this run: what it could not keep may come back or be forgotten.
    store_failed: bool,
}

pub type Verdict = Result<(), String>;

thread_local! {
    static SIMULATING: Cell<bool> = const { Cell::new(false) };
}

/// Runs one seed.
pub fn simulate(seed: u64, tracing: Tracing, node: Box<dyn Node>) -> Result<Vec<String>, Failure> {
    tell(seed, Run::new(seed, tracing, node), Run::whole)
}

/// Lets a story happen and says how it ended.
pub fn tell(
    seed: u64,
    mut run: Run,
    story: impl FnOnce(&mut Run) -> Verdict,
) -> Result<Vec<String>, Failure> {
    watch_panics(|| SIMULATING.get());
    SIMULATING.set(true);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story(&mut run)));
    let outcome = outcome.unwrap_or_else(|_| Err(last_panic().unwrap_or_default()));
    let trace = run.host.trace.lines();
    run.stop_agent();
    SIMULATING.set(false);
    run.host.judge.wishes(None);
    outcome.map_err(|what| Failure {
        seed,
        what,
        trace: trace.clone(),
    })?;
    Ok(trace)
}

impl Run {
    /// A run that has not begun: no agent, no manifest, no fault.
    pub fn new(seed: u64, tracing: Tracing, node: Box<dyn Node>) -> Run {
        let stream = Stream::new(seed);
        let host = Host::new(&stream, tracing);
        Run {
            luck: stream.fork("storm"),
            turns: stream.fork("turns"),
            beside: None,
            seed: stream,
            node,
            manifests: Manifests::default(),
            executor: Rc::new(Executor::new()),
            moment: RefCell::default(),
            minute: RefCell::default(),
            version: Cell::new(0),
            store_failed: false,
            host,
        }
    }

    /// Work beside the running agent; it ends with it.
    pub fn spawn<T: 'static>(
        &self,
        work: impl Future<Output = T> + 'static,
    ) -> async_executor::Task<T> {
        self.executor.spawn(work)
    }

    fn whole(&mut self) -> Verdict {
        self.begin();
        self.storm()?;
        self.calm()?;
        check::converged(self)?;
        self.node.keeps_promises()?;
        self.idle()?;
        check::converged(self)?;
        self.litmus()
    }

    pub fn begin(&mut self) {
        for image in IMAGES {
            if self.luck.chance(600) {
                self.host.images.borrow_mut().add(image);
            }
        }
        for _ in 0..self.luck.between(1, 3) {
            self.edit();
        }
        self.start_agent();
    }

    pub fn edit(&mut self) {
        let features = self.node.features();
        let desired = self.host.judge.desired().unwrap_or_default();
        let accepted = |name: &str| {
            let suffixed = format!("{name}-");
            // The last good pod of a broken file lives in the store.
            !self.store_failed && desired.iter().any(|pod| pod.name.starts_with(&suffixed))
        };
        let said = self.manifests.change(&self.luck, features, accepted);
        if let Some(name) = self.manifests.replaced.take() {
            self.host.judge.is_replaced(&name);
        }
        self.host.trace.note(|| format!("== {said}"));
        self.node.feed(&self.manifests);
    }

    pub fn start_agent(&mut self) {
        self.host.trace.note(|| "== agent starts".to_owned());
        self.executor = Rc::new(Executor::new());
        let secrets = self.seed.fork(&format!("secrets {}", self.host.agent()));
        self.node.start(&self.host, secrets, &self.executor);
        self.host.judge.wishes(Some(self.node.desired()));
    }

    fn stop_agent(&mut self) {
        self.host.judge.wishes(None);
        let executor = std::mem::replace(&mut self.executor, Rc::new(Executor::new()));
        let node = &mut self.node;
        self.host.timeline.freeze(|| {
            node.died();
            // Cancelled tasks are dropped where they would have been polled.
            for _ in 0..POLLS_AT_ONE_MOMENT_MAX {
                if !executor.try_tick() {
                    break;
                }
            }
        });
        self.host.agent_died();
    }

    fn crash(&mut self) {
        self.host.trace.note(|| "== agent crashes".to_owned());
        self.stop_agent();
    }

    pub fn cut_power(&mut self) {
        self.host.trace.note(|| "== power cut".to_owned());
        self.stop_agent();
        self.node.power_cut(&self.luck);
        self.host.power_cut();
    }

    fn storm(&mut self) -> Verdict {
        // Each seed has its own mix: some are stormy in one way only.
        let strikes = match self.node.features() {
            Features::Plain => STRIKES_PLAIN,
            Features::Full => STRIKES,
        };
        let kinds: Vec<u64> = (0..strikes).filter(|_| self.luck.chance(500)).collect();
        let events = self.luck.between(3, 25);
        let patience = *self.luck.pick(&[300, 5_000, 60_000]);
        for _ in 0..events {
            let wait = Duration::from_millis(self.luck.between(0, patience));
            self.run_for(wait)?;
            match kinds.is_empty() || self.luck.chance(350) {
                true => self.edit(),
                false => {
                    let kind = *self.luck.pick(&kinds);
                    self.strike(kind)?;
                }
            }
        }
        Ok(())
    }

    pub fn strike(&mut self, kind: u64) -> Verdict {
        match kind {
            0 | 1 => self.crash_within_steps(Self::crash)?,
            2 => self.crash_within_steps(Self::cut_power)?,
            3 => self.jump_clock(),
            4 => self.kill_pause(),
            5 => self.kill_container(137, "OOMKilled"),
            6 => self.kill_container(1, "Error"),
            7 => self.kill_shim(),
            8 => self.change_image(),
            12 => self.fail_store(),
            13 | 14 => {
                let writes = self.luck.fork(&format!("writes {}", self.luck.next()));
                self.node.write_objects(writes, &self.executor);
            }
            _ => self.change_weather(),
        }
        Ok(())
    }

    /// The agent dies at some poll, even in the middle of a busy moment.
    fn crash_within_steps(&mut self, end: fn(&mut Run)) -> Verdict {
        let polls = self.luck.between(0, 400);
        for _ in 0..polls {
            if !self.step(Nanos::MAX)? {
                break;
            }
        }
        end(self);
        let down = Duration::from_millis(self.luck.between(0, 20_000));
        self.run_for(down)?;
        if self.luck.chance(300) {
            self.edit();
        }
        self.start_agent();
        Ok(())
    }

    fn jump_clock(&mut self) {
        let ten_years = SignedDuration::from_hours(24 * 3653);
        let wall = self.host.timeline.wall();
        let wall = match self.luck.between(0, 2) {
            0 => Timestamp::UNIX_EPOCH,
            1 => wall.checked_add(ten_years).unwrap_or(wall),
            _ => wall.checked_sub(ten_years).unwrap_or(wall),
        };
        self.host
            .trace
            .note(|| format!("== wall clock jumps to {wall}"));
        self.host.timeline.set_wall(wall);
    }

    fn any_pod(&self) -> Option<Uid> {
        let kernel = self.host.kernel.borrow();
        let uids: Vec<Uid> = kernel.pods.keys().cloned().collect();
        (!uids.is_empty()).then(|| self.luck.pick(&uids).clone())
    }

    fn kill_pause(&mut self) {
        let Some(uid) = self.any_pod() else {
            return;
        };
        let mut kernel = self.host.kernel.borrow_mut();
        let pod = kernel.pods.get_mut(&uid).expect("just listed");
        if let Some(sandbox) = &mut pod.sandbox {
            sandbox.state = SandboxState::Dead("pause exited: signal 9".to_owned());
            self.host.trace.note(|| format!("== pause of {uid} dies"));
            self.host.judge.lost_sandbox(&uid);
        }
        drop(kernel);
        show(&self.host, &uid);
    }

    fn kill_container(&mut self, code: i32, reason: &str) {
        let Some(uid) = self.any_pod() else {
            return;
        };
        let running: Vec<ContainerId> = {
            let kernel = self.host.kernel.borrow();
            let all = kernel.pods[&uid].containers.iter();
            all.filter(|c| c.is_running())
                .map(|c| c.id.clone())
                .collect()
        };
        if let Some(id) = running.first() {
            self.host
                .trace
                .note(|| format!("== a container of {uid} is killed"));
            end_container(&self.host, &uid, id, code, reason);
        }
    }

    /// Its successor comes by itself; exits until then are seen by nobody.
    fn kill_shim(&mut self) {
        let Some(uid) = self.any_pod() else {
            return;
        };
        self.host.trace.note(|| format!("== shim of {uid} dies"));
        let mut kernel = self.host.kernel.borrow_mut();
        kernel.pods.get_mut(&uid).expect("just listed").shim_dead = true;
        drop(kernel);
        let successor = Duration::from_millis(self.luck.between(1, 5000));
        self.host.later(successor, move |host| {
            if let Some(pod) = host.kernel.borrow_mut().pods.get_mut(&uid) {
                pod.shim_dead = false;
            }
        });
    }

    fn change_image(&mut self) {
        let image = *self.luck.pick(&IMAGES);
        let origins = [Origin::Pullable, Origin::Unreachable, Origin::Refused];
        let origin = *self.luck.pick(&origins);
        let mut images = self.host.images.borrow_mut();
        if self.luck.chance(300) {
            self.host.trace.note(|| format!("== {image} is imported"));
            images.add(image);
        } else {
            self.host.trace.note(|| format!("== {image} is {origin:?}"));
            images.set_origin(image, origin);
        }
    }

    fn fail_store(&mut self) {
        let failures = [
            None,
            Some(io::ErrorKind::StorageFull),
            Some(io::ErrorKind::ReadOnlyFilesystem),
            Some(io::ErrorKind::Other),
        ];
        let failure = *self.luck.pick(&failures);
        self.host.trace.note(|| format!("== store: {failure:?}"));
        self.store_failed |= failure.is_some();
        self.node.fail_store(failure);
    }

    fn change_weather(&mut self) {
        let often = *self.luck.pick(&[0, 20, 150, 500]);
        let or_not = |luck: &Stream| if luck.chance(400) { often } else { 0 };
        let faults = Faults {
            step_fails: or_not(&self.luck),
            step_hangs: or_not(&self.luck) / 5,
            slow_observation: or_not(&self.luck),
            disk_fails: or_not(&self.luck),
            volume_fails: or_not(&self.luck),
            net_fails: or_not(&self.luck),
            disk: *self.luck.pick(&[
                DiskMode::Ok,
                DiskMode::Ok,
                DiskMode::Full,
                DiskMode::ReadOnly,
            ]),
        };
        self.host.trace.note(|| format!("== weather: {faults:?}"));
        *self.host.faults.borrow_mut() = faults;
    }

    fn calm(&mut self) -> Verdict {
        self.end_faults();
        self.run_for(CALM)
    }

    /// Nothing goes wrong any more, and nothing that a pod waits for is missing.
    pub fn end_faults(&mut self) {
        self.host.trace.note(|| "== calm".to_owned());
        *self.host.faults.borrow_mut() = Faults::default();
        for image in IMAGES {
            self.host
                .images
                .borrow_mut()
                .set_origin(image, Origin::Pullable);
        }
        for image in self.manifests.never_pulled() {
            self.host.images.borrow_mut().add(&image);
        }
        self.node.fail_store(None);
        self.manifests.complete();
        self.node.feed(&self.manifests);
    }

    /// Nothing changes any more, so nothing may be written.
    pub fn idle(&mut self) -> Verdict {
        let written = || self.host.files.borrow().writes + self.node.store_writes();
        let before = written();
        self.run_for(IDLE)?;
        let written = self.host.files.borrow().writes + self.node.store_writes() - before;
        match written > 0 && check::is_still(self) {
            true => Err(format!(
                "{written} writes while nothing changed for {IDLE:?}"
            )),
            false => Ok(()),
        }
    }

    /// Derived statuses come back after all of them were erased.
    pub fn litmus(&mut self) -> Verdict {
        if !check::is_still(self) {
            return Ok(());
        }
        let before = check::derived(self);
        self.host
            .trace
            .note(|| "== every status is erased".to_owned());
        self.crash();
        self.node.erase_statuses();
        self.start_agent();
        self.run_for(Duration::from_secs(60))?;
        let after = check::derived(self);
        match before == after {
            true => Ok(()),
            false => Err(format!("statuses differ: {before:#?} became {after:#?}")),
        }
    }

    /// Runs the node and the world for a span of virtual time.
    pub fn run_for(&mut self, span: Duration) -> Verdict {
        let end = self.host.timeline.now() + span.as_nanos() as Nanos;
        while self.step(end)? {}
        self.host.timeline.jump(end);
        Ok(())
    }

    /// One poll, or the next event of the world. False if nothing happens until `end`.
    fn step(&self, end: Nanos) -> Result<bool, String> {
        let moved = if self.tick() {
            self.count_poll()?;
            if let Some(panic) = last_panic() {
                return Err(panic);
            }
            true
        } else {
            self.host.judge.look_around(&self.host);
            if let Some(beside) = &self.beside {
                beside.look(&self.host);
            }
            self.note_statuses();
            let due = self.host.timeline.next_due();
            due.is_some_and(|due| due <= end) && self.host.timeline.fire_next()
        };
        match self.host.judge.verdict() {
            Some(crime) => Err(crime),
            None => Ok(moved),
        }
    }

    /// One poll of the node or of what is beside it, drawn from the seed.
    fn tick(&self) -> bool {
        let Some(beside) = &self.beside else {
            return self.executor.try_tick();
        };
        match self.turns.chance(500) {
            true => self.executor.try_tick() || beside.tick(),
            false => beside.tick() || self.executor.try_tick(),
        }
    }

    fn note_statuses(&self) {
        let version = self.node.version();
        if self.version.replace(version) == version {
            return;
        }
        let desired = self.host.judge.desired().unwrap_or_default();
        for (uid, status) in self.node.statuses() {
            // What a source or the store says before the kubelet has told is no claim.
            if !status["conditions"].is_array() && self.node.features() == Features::Full {
                continue;
            }
            let phase = status["phase"].as_str().unwrap_or_default();
            let pod = desired.iter().find(|pod| pod.uid == uid);
            // Its removal was forgotten, and with it how it had ended; it goes once more.
            if self.store_failed && pod.is_some_and(|pod| pod.deleting) {
                continue;
            }
            let exits = pod.map(|pod| pod.final_exits(&status)).unwrap_or_default();
            self.host.judge.published(&uid, phase, &exits);
        }
    }

    fn count_poll(&self) -> Verdict {
        let now = self.host.timeline.now();
        let count = |window: &RefCell<(Nanos, u64)>, at: Nanos| {
            let mut window = window.borrow_mut();
            if window.0 != at {
                *window = (at, 0);
            }
            window.1 += 1;
            window.1
        };
        let busy = count(&self.moment, now) > POLLS_AT_ONE_MOMENT_MAX
            || count(&self.minute, now / MINUTE) > POLLS_A_MINUTE_MAX;
        match busy {
            true => Err("livelock: the node never gets idle (see the trace's end)".to_owned()),
            false => Ok(()),
        }
    }
}
