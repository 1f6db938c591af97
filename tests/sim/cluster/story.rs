//! One seed of the node and its cluster, from the first boot to the last check.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lowtide::registry::{FaultyDisk, Reader};
use lowtide::world::Cluster;

use super::check;
use super::door::Door;
use super::far::{Far, TOKEN};
use super::liar::{Liar, Mutation};
use super::sea::{Caller, KEEPALIVE, Sea, Shore, Weather};
use super::user::User;
use super::witness::Witness;
use crate::check as node_check;
use crate::host::Host;
use crate::images::Origin;
use crate::manifests::IMAGES;
use crate::random::Stream;
use crate::real::RealNode;
use crate::run::{self, Beside, CALM, Executor, Failure, Run, Verdict};
use crate::timeline::SimClock;
use crate::trace::Tracing;

/// Kinds of strikes at the node that are its own: see `Run::strike`.
const STRIKES: u64 = 15;
/// After the last fault a pod of the cluster is known here: a dead watch is found out, a pause between
/// tries (30 s) goes by, somebody dials (10 s), what the pod names is waited for (10 s), and then some.
const KNOWN: Duration = Duration::from_secs(KEEPALIVE.as_secs() + 70);

/// Beyond its grace a pod that is asked to go in fair weather is there so long at most.
const PARTING: Duration = Duration::from_secs(5);

/// How often node and cluster are compared until they agree, and how long apart.
const LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// All that is not the node.
struct Rest {
    far: Rc<Far>,
    sea: Rc<Sea>,
    fair: Rc<Sea>,
    user: Rc<User>,
    witness: Rc<Witness>,
    ground: Rc<Executor>,
}

impl Beside for Rest {
    fn tick(&self) -> bool {
        self.ground.try_tick() || self.far.tick()
    }

    fn look(&self, host: &Host) {
        self.witness.look(host);
    }
}

struct Story<'a> {
    run: &'a mut Run,
    rest: Rc<Rest>,
    luck: Stream,
    backup: Option<FaultyDisk>,
}

/// What the node's calls pass.
type Dialled = (Rc<Sea>, Rc<Witness>);

/// Runs one seed.
pub fn simulate(seed: u64, tracing: Tracing) -> Result<Vec<String>, Failure> {
    simulate_with(seed, tracing, Mutation::None)
}

/// The same, of a node that is wrong.
pub fn simulate_with(
    seed: u64,
    tracing: Tracing,
    mutation: Mutation,
) -> Result<Vec<String>, Failure> {
    let stream = Stream::new(seed).fork("cluster");
    // The node dials what is made after it.
    let dialled: Rc<RefCell<Option<Dialled>>> = Rc::default();
    let (way, count) = (Rc::clone(&dialled), Rc::default());
    let node = RealNode::joined(Rc::new(move |host, executor| {
        let way = way.borrow();
        let (sea, witness) = way.as_ref().expect("made before the node starts");
        let witness = Rc::clone(witness);
        let clock = Rc::new(SimClock(Rc::clone(&host.timeline)));
        let machine = Rc::clone(host);
        let overseer = Rc::new(move |call: &_| witness.oversee(&machine, call));
        let door = Door::new(sea, clock, executor, Some(TOKEN), Some(overseer));
        match mutation {
            Mutation::None => door as Rc<dyn Cluster>,
            _ => Rc::new(Liar {
                door,
                mutation,
                count: Rc::clone(&count),
                told: RefCell::default(),
            }),
        }
    }));
    let (slot, store) = (node.slot(), (node.disk(), node.ledger()));
    let mut run = Run::new(seed, tracing, Box::new(node));
    let (timeline, trace) = (&run.host.timeline, &run.host.trace);
    let ground = Rc::new(Executor::new());
    let far = Far::new(timeline, trace, stream.fork("far"));
    let sea = |name: &str, caller| {
        let shore = (Rc::clone(&far) as Rc<dyn Shore>, caller);
        Sea::new(timeline, trace, stream.fork(name), &ground, shore)
    };
    let (fair, sea) = (sea("fair", Caller::Socket), sea("sea", Caller::Network));
    if mutation == Mutation::WaitsForTheDead {
        sea.without_keepalive();
    }
    let door = Door::new(&fair, Rc::clone(&far.clock) as _, &ground, None, None);
    let user = User::new(&door, &far, stream.fork("user"), trace, &ground);
    let witness = Witness::new(&far, slot, store);
    dialled.replace(Some((Rc::clone(&sea), Rc::clone(&witness))));
    let sworn = Rc::clone(&witness);
    run.host.judge.swear(sworn);
    let rest = Rc::new(Rest {
        far,
        sea,
        fair,
        user,
        witness,
        ground,
    });
    run.beside = Some(Rc::clone(&rest) as Rc<dyn Beside>);
    let luck = stream.fork("storm");
    let end = Rc::clone(&rest);
    let told = run::tell(seed, run, move |run| {
        let mut story = Story {
            run,
            rest,
            luck,
            backup: None,
        };
        story.whole()
    });
    end.end();
    dialled.take();
    told
}

impl Rest {
    fn end(&self) {
        self.user.leave();
        self.sea.drain();
        self.fair.drain();
        self.far.kill();
        while self.ground.try_tick() {}
    }
}

impl Story<'_> {
    fn whole(&mut self) -> Verdict {
        self.rest.far.start();
        self.run.begin();
        self.rest.user.start_to_prepare();
        self.storm()?;
        self.calm()?;
        self.converged()?;
        self.run.node.keeps_promises()?;
        self.run.idle()?;
        self.converged()
    }

    /// A container may have ended a moment ago, and what is said of it be on its way.
    fn converged(&mut self) -> Verdict {
        for _ in 1..LOOKS {
            if self.agree().is_ok() {
                return Ok(());
            }
            self.run.run_for(BETWEEN_LOOKS)?;
        }
        self.agree()
    }

    fn agree(&self) -> Verdict {
        node_check::converged(self.run)?;
        let far = self.rest.far.reader().ok_or("the cluster does not run")?;
        check::converged(self.run, &far)?;
        let host = &self.run.host;
        self.rest.user.ledger.was_told_the_truth(&far, host)
    }

    fn storm(&mut self) -> Verdict {
        let kinds: Vec<u64> = (0..STRIKES).filter(|_| self.luck.chance(300)).collect();
        let patience = *self.luck.pick(&[300, 5_000, 30_000, 90_000]);
        for _ in 0..self.luck.between(5, 30) {
            let wait = Duration::from_millis(self.luck.between(0, patience));
            self.run.run_for(wait)?;
            match self.luck.between(0, 99) {
                0..=34 => self.let_user_act(),
                35..=54 => self.change_link(),
                55..=69 => self.strike_cluster()?,
                70..=84 => self.run.edit(),
                _ if kinds.is_empty() => {}
                _ => self.run.strike(*self.luck.pick(&kinds))?,
            }
        }
        Ok(())
    }

    fn let_user_act(&mut self) {
        let names = self.run.manifests.pod_names();
        let mirrors = names
            .iter()
            .map(|name| format!("{name}-{}", crate::real::NODE_NAME));
        self.rest.user.act(mirrors.collect());
    }

    fn change_link(&mut self) {
        let sea = &self.rest.sea;
        match self.luck.between(0, 5) {
            0 => sea.reset_all(),
            1 => sea.forget(),
            2 => sea.set(Weather::fair()),
            _ => {
                let lost =
                    *self
                        .luck
                        .pick(&[(true, true), (true, false), (false, true), (false, false)]);
                sea.set(Weather {
                    out_lost: lost.0,
                    back_lost: lost.1,
                    no_route: self.luck.chance(150),
                    delay: Duration::from_millis(*self.luck.pick(&[1, 5, 50, 700, 2000])),
                    resets: *self.luck.pick(&[0, 0, 30, 200]),
                });
            }
        }
    }

    fn strike_cluster(&mut self) -> Verdict {
        let rest = Rc::clone(&self.rest);
        match self.luck.between(0, 5) {
            0 => {
                rest.far.kill();
                self.stay_down()?;
            }
            1 => {
                self.lose_cluster();
                self.stay_down()?;
            }
            2 => {
                self.run
                    .host
                    .trace
                    .note(|| "== a backup is made".to_owned());
                self.backup = Some(rest.far.backup());
            }
            3 => {
                if let Some(backup) = self.backup.clone() {
                    rest.far.kill();
                    rest.far.restore(&backup);
                    self.stay_down()?;
                }
            }
            _ => self.jump_far_clock(),
        }
        Ok(())
    }

    fn lose_cluster(&mut self) {
        self.rest.sea.far_end_lost_power();
        self.rest.fair.far_end_lost_power();
        self.rest.far.cut_power();
    }

    fn stay_down(&mut self) -> Verdict {
        let down = *self.luck.pick(&[100, 3_000, 60_000]);
        let down = Duration::from_millis(self.luck.between(0, down));
        self.run.run_for(down)?;
        self.rest.far.start();
        Ok(())
    }

    fn jump_far_clock(&mut self) {
        let clock = &self.rest.far.clock;
        let now = lowtide::world::Clock::wall(&**clock);
        let year = SignedDuration::from_hours(24 * 365);
        let wall = match self.luck.between(0, 2) {
            0 => Timestamp::UNIX_EPOCH,
            1 => now.checked_add(year).unwrap_or(now),
            _ => now.checked_sub(year).unwrap_or(now),
        };
        self.run
            .host
            .trace
            .note(|| format!("== the cluster's clock jumps to {wall}"));
        clock.set_wall(wall);
    }

    fn calm(&mut self) -> Verdict {
        if self.luck.chance(500) {
            // The last word of all goes over connections that are dead, and nobody notices.
            self.rest.sea.set(Weather::fair());
            self.run.run_for(Duration::from_secs(60))?;
            self.rest.sea.forget();
            self.rest.user.start_to_create();
            self.run.run_for(Duration::from_secs(5))?;
        }
        self.run.end_faults();
        self.rest.sea.set(Weather::fair());
        self.rest.user.start_to_complete();
        self.import_images();
        let far = self.rest.far.reader();
        let given = far.map(|far| check::given(&far)).unwrap_or_default();
        self.run.run_for(KNOWN)?;
        // The last pressure of the storm may have collected what nobody was known to need.
        self.import_images();
        let far = self.rest.far.reader().ok_or("the cluster does not run")?;
        check::knows(self.run, &far, &given)?;
        let took = self.part(&far)?;
        self.run.run_for(CALM - KNOWN - took)
    }

    /// In fair weather a deletion takes the grace that it is given and hardly more. Returns how long.
    fn part(&mut self, far: &Reader) -> Result<Duration, String> {
        let live = check::live(self.run, far);
        if live.is_empty() {
            return Ok(Duration::ZERO);
        }
        let (key, uid) = self.luck.pick(&live).clone();
        // None at all takes the object at once, and the pod its own.
        let grace_s = self.luck.between(1, 30);
        self.rest.user.start_to_delete(&key, grace_s);
        let said = || format!("== {key} has to go in {grace_s} s");
        self.run.host.trace.note(said);
        let span = Duration::from_secs(grace_s) + PARTING;
        self.run.run_for(span)?;
        check::has_gone(self.run, far, &key, &uid)?;
        Ok(span)
    }

    /// What only an import would bring to a pod of the cluster.
    fn import_images(&self) {
        let mut images = self.run.host.images.borrow_mut();
        for image in IMAGES {
            images.set_origin(image, Origin::Pullable);
            images.add(image);
        }
    }
}
