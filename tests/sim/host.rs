//! The simulated machine: what goes on living when the agent dies.
//!
//! ```text
//!   agent (tasks of one executor) ──► world seams ──► Host { kernel, disk, images, volumes, … }
//!        dies at any poll                               └── timeline: steps end later, or never
//! ```
//!
//! Fault model. A step takes random time; may fail before or after its effect; may hang until its
//! deadline. Requests that a shim has taken go on without the agent; work that the agent does
//! itself (files, volumes, pulls) ends with it, half done. A power cut ends everything, loses what
//! was not flushed and starts boot time again. Faults stop when the run says so; then the node must
//! converge.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use lowtide::world::{LocalFuture, Stamp, World};

use crate::disk::{Files, SimDisk};
use crate::images::{ImageStore, SimImages};
use crate::judge::Judge;
use crate::kernel::Kernel;
use crate::net::SimNet;
use crate::random::Stream;
use crate::runtime::SimRuntime;
use crate::stats::{Gauges, SimStats};
use crate::timeline::{SimClock, Timeline};
use crate::trace::{Trace, Tracing};
use crate::volumes::{Mounted, SimVolumes};

/// When a hanging step gives up. The real one: runtime's own deadline.
const HANG: Duration = Duration::from_secs(120);

/// How likely each kind of fault is now, per thousand; all zero once the weather is calm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    pub step_fails: u64,
    pub step_hangs: u64,
    pub slow_observation: u64,
    pub disk_fails: u64,
    pub volume_fails: u64,
    pub net_fails: u64,
    pub disk: DiskMode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskMode {
    #[default]
    Ok,
    Full,
    ReadOnly,
}

/// What becomes of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Succeeds,
    /// Nothing happened.
    FailsBefore,
    /// It happened, and the answer says that it failed.
    FailsAfter,
    /// No answer until the deadline; it happened or it did not.
    Hangs {
        happens: bool,
    },
}

pub struct Host {
    pub timeline: Rc<Timeline>,
    pub trace: Rc<Trace>,
    pub judge: Judge,
    pub luck: Stream,
    pub faults: RefCell<Faults>,
    pub kernel: RefCell<Kernel>,
    pub files: RefCell<Files>,
    pub images: RefCell<ImageStore>,
    pub mounted: RefCell<Mounted>,
    pub gauges: RefCell<Gauges>,
    /// Counts boots: what was begun in an earlier one never ends.
    boot: Cell<u64>,
    /// Counts agents: what an earlier one did itself never ends.
    agent: Cell<u64>,
}

impl Host {
    pub fn new(seed: &Stream, tracing: Tracing) -> Rc<Host> {
        let timeline = Timeline::new(seed.fork("order"));
        let trace = Trace::new(tracing, Rc::clone(&timeline));
        Rc::new(Host {
            judge: Judge::new(Rc::clone(&trace)),
            luck: seed.fork("luck"),
            timeline,
            trace,
            faults: RefCell::default(),
            kernel: RefCell::default(),
            files: RefCell::default(),
            images: RefCell::default(),
            mounted: RefCell::default(),
            gauges: RefCell::default(),
            boot: Cell::new(0),
            agent: Cell::new(0),
        })
    }

    /// The seams over this machine. `secrets` is the stream that the node draws from.
    pub fn world(self: &Rc<Host>, secrets: Stream) -> World {
        World {
            clock: Rc::new(SimClock(Rc::clone(&self.timeline))),
            random: Rc::new(secrets),
            disk: Rc::new(SimDisk(Rc::clone(self))),
            net: Rc::new(SimNet(Rc::clone(self))),
            images: Rc::new(SimImages(Rc::clone(self))),
            volumes: Rc::new(SimVolumes(Rc::clone(self))),
            runtime: Rc::new(SimRuntime(Rc::clone(self))),
            stats: Rc::new(SimStats(Rc::clone(self))),
        }
    }

    pub fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.timeline.since_boot(),
            wall: self.timeline.wall(),
        }
    }

    pub fn boot(&self) -> u64 {
        self.boot.get()
    }

    pub fn agent(&self) -> u64 {
        self.agent.get()
    }

    /// The agent's process is gone (its tasks must have been dropped).
    pub fn agent_died(&self) {
        self.agent.set(self.agent.get() + 1);
        self.kernel.borrow_mut().forget_observer();
    }

    /// Power is cut and comes back: unflushed data, tmpfs and every process are gone.
    pub fn power_cut(&self) {
        self.agent_died();
        self.boot.set(self.boot.get() + 1);
        self.timeline.reboot();
        self.kernel.borrow_mut().reboot();
        self.files.borrow_mut().power_cut(&self.luck);
        self.mounted.borrow_mut().reboot();
        self.judge.rebooted();
    }

    /// Does something later unless the machine was rebooted meanwhile.
    pub fn later(self: &Rc<Host>, delay: Duration, act: impl FnOnce(&Rc<Host>) + 'static) {
        let (host, boot) = (Rc::clone(self), self.boot.get());
        self.timeline.after(delay, move || {
            if host.boot.get() == boot {
                act(&host);
            }
        });
    }

    /// Like `later`, for what the agent's own process does: nothing if it died meanwhile.
    pub fn later_in_agent(self: &Rc<Host>, delay: Duration, act: impl FnOnce(&Rc<Host>) + 'static) {
        let agent = self.agent.get();
        self.later(delay, move |host| {
            if host.agent.get() == agent {
                act(host);
            }
        });
    }

    /// A span around `typical`: mostly near, sometimes ten times as long.
    pub fn span(&self, typical: Duration) -> Duration {
        let percent = if self.luck.chance(50) {
            self.luck.between(200, 1000)
        } else {
            self.luck.between(30, 170)
        };
        typical * percent as u32 / 100
    }

    /// Draws the fate of one step of the runtime and the time until its answer.
    pub fn fate(&self, typical: Duration) -> (Fate, Duration) {
        let (fails, hangs) = {
            let faults = self.faults.borrow();
            (faults.step_fails, faults.step_hangs)
        };
        if self.luck.chance(hangs) {
            let happens = self.luck.chance(500);
            return (Fate::Hangs { happens }, HANG);
        }
        let fate = match (self.luck.chance(fails), self.luck.chance(500)) {
            (false, _) => Fate::Succeeds,
            (true, true) => Fate::FailsBefore,
            (true, false) => Fate::FailsAfter,
        };
        (fate, self.span(typical))
    }
}

/// Hands a world event's outcome to whoever asked. A machine that was rebooted never answers.
pub fn question<T: 'static>() -> (async_channel::Sender<T>, impl Future<Output = T>) {
    let (asker, answer) = async_channel::bounded(1);
    let waiting = async move {
        match answer.recv().await {
            Ok(outcome) => outcome,
            Err(_) => std::future::pending().await,
        }
    };
    (asker, waiting)
}

pub fn give<T>(asker: &async_channel::Sender<T>, outcome: T) {
    // Nobody listens any more: the agent died or lost interest, which is its right.
    let _ = asker.try_send(outcome);
}

pub fn boxed<'a, T>(future: impl Future<Output = T> + 'a) -> LocalFuture<'a, T> {
    Box::pin(future)
}
