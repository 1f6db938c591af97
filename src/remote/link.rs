//! Whether the cluster answers, said once when that changes, and how long to wait before it is asked
//! again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use event_listener::Event;
use futures_lite::future::or;

use crate::world::{
    BootTime, Call, Clock, Cluster, Knock, NoAnswer, NoWatch, Random, Reply, Watch,
};

/// First and longest pause after calls that failed. Source: client-go tools/cache/reflector.go.
const PAUSE_MIN: Duration = Duration::from_millis(800);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Without a pause for so long, the next one is the first.
const CALM: Duration = Duration::from_secs(120);
/// Between two knocks at a door that is shut: one costs 100 bytes with the refusal.
const KNOCK_PERIOD: Duration = Duration::from_secs(1);
/// A connection that is taken costs up to 4 kB: after so many without an answer, pauses are longer.
const MUTE_MAX: u32 = 60;
const MUTE_PERIOD: Duration = Duration::from_secs(5);
/// A shorter silence is that of some calls, perhaps of one of several servers: for its end nobody's pause is
/// cut short and no watch is given up, unless that was not done for a while.
const OUTAGE_MIN: Duration = Duration::from_secs(2);
const RING_PERIOD: Duration = Duration::from_secs(120);

/// Nobody has asked anything for so long: nobody has anything to say. Longer than statuses are gathered.
const REST: Duration = Duration::from_millis(200);
const REST_MAX: Duration = Duration::from_secs(2);

/// How long the first answer is waited for: after a boot the network may be up a moment later.
const FIRST_MAX: Duration = Duration::from_secs(5);

/// The link to the cluster, as every loop of the sync shares it.
pub struct Link {
    cluster: Rc<dyn Cluster>,
    clock: Rc<dyn Clock>,
    random: Rc<dyn Random>,
    /// `None`: nobody has asked yet.
    up: Cell<Option<bool>>,
    /// When it was last answered.
    heard: Cell<Option<BootTime>>,
    /// Since when it is down, if it is.
    silent_since: Cell<BootTime>,
    /// Whether that was said.
    told: Cell<bool>,
    /// Rings when an outage is over.
    back: Event,
    rang_at: Cell<BootTime>,
    /// Rings when it begins to answer or stops.
    turned: Event,
    /// How often the cluster was found to be older than it had been.
    rewinds: Cell<u32>,
    /// Knocks since the last that was answered.
    unanswered: Cell<u32>,
    /// Each call under way holds it.
    asking: Rc<()>,
}

/// Pauses that grow.
#[derive(Default)]
pub struct Backoff {
    failures: u32,
    /// When the last one began.
    last: BootTime,
    /// When the link had rung then: what was before that counts no more.
    rang_at: BootTime,
}

impl Backoff {
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    fn next(&mut self) -> Duration {
        let factor = 1u32 << self.failures.min(10);
        self.failures += 1;
        (PAUSE_MIN * factor).min(PAUSE_MAX)
    }
}

/// Whether the cluster knows nobody now, or is not there: what was asked is not the cause.
pub fn wants_a_pause(reply: &Reply) -> bool {
    match reply.status {
        401 | 429 | 502..=504 => true,
        status => status >= 500 && reply.retry_after.is_some(),
    }
}

impl Link {
    pub fn new(cluster: Rc<dyn Cluster>, clock: Rc<dyn Clock>, random: Rc<dyn Random>) -> Link {
        let silent_since = Cell::new(clock.now());
        Link {
            cluster,
            clock,
            random,
            up: Cell::new(None),
            heard: Cell::new(None),
            silent_since,
            told: Cell::new(false),
            back: Event::new(),
            rang_at: Cell::default(),
            turned: Event::new(),
            rewinds: Cell::new(0),
            unanswered: Cell::new(0),
            asking: Rc::default(),
        }
    }

    /// Whether the last call was answered.
    pub fn is_up(&self) -> bool {
        self.up.get() == Some(true)
    }

    /// Whether there is an outage, or nobody was ever answered.
    pub fn is_out(&self) -> bool {
        let out = self.up.get() == Some(false) && self.silence() >= OUTAGE_MIN;
        out || self.heard.get().is_none()
    }

    fn silence(&self) -> Duration {
        self.clock.now().since(self.silent_since.get())
    }

    /// Waits for the first answer of all, though not for long.
    pub async fn first_answer(&self) {
        let until = self.silent_since.get() + FIRST_MAX;
        while self.heard.get().is_none() && self.clock.now() < until {
            or(self.turned(), self.clock.sleep_until(until)).await;
        }
    }

    /// Waits until the cluster has heard what there is to say, as long as it answers; not for long.
    pub async fn rest(&self) {
        let until = self.clock.now() + REST_MAX;
        let mut since = self.clock.now();
        while self.is_up() {
            let now = self.clock.now();
            if Rc::strong_count(&self.asking) > 1 {
                since = now;
            }
            let calm = since + REST;
            if now >= calm.min(until) {
                return;
            }
            self.wait(REST / 4).await;
        }
    }

    /// Resolves the next time that the cluster answers after an outage, or for the first time, or that there
    /// is a better way to it: what was begun before may never be answered.
    pub async fn back(&self) {
        self.back.listen().await;
    }

    /// Resolves the next time that the cluster begins to answer or stops.
    pub async fn turned(&self) {
        self.turned.listen().await;
    }

    pub async fn call(&self, call: Call) -> Result<Reply, NoAnswer> {
        let _asking = self.asking.clone();
        let begun = self.clock.now();
        let answer = self.cluster.call(call).await;
        self.note(begun, answer.as_ref().err());
        answer
    }

    /// The same, given up after `span`: on a connection that is dead and does not know it, whoever
    /// cannot wait dials again.
    pub async fn call_within(&self, span: Duration, call: Call) -> Result<Reply, NoAnswer> {
        let begun = self.clock.now();
        let late = async {
            self.wait(span).await;
            let text = format!("no answer in {} s", span.as_secs());
            let why = NoAnswer::Unreachable(text);
            self.note(begun, Some(&why));
            Err(why)
        };
        or(self.call(call), late).await
    }

    pub async fn watch(&self, path: String) -> Result<Box<dyn Watch>, NoWatch> {
        let begun = self.clock.now();
        let opened = self.cluster.watch(path).await;
        self.note(
            begun,
            match &opened {
                Err(NoWatch::NoAnswer(why)) => Some(why),
                Ok(_) | Err(NoWatch::Refused(_)) => None,
            },
        );
        opened
    }

    /// A watch broke: that alone does not say that the cluster is gone, but the next call shall dial.
    pub fn doubt(&self) {
        self.cluster.reconnect();
    }

    /// There is a better way to the cluster: whoever waits tries now, over a new connection.
    pub fn nudge(&self) {
        self.cluster.reconnect();
        self.ring();
    }

    fn ring(&self) {
        self.rang_at.set(self.clock.now());
        self.back.notify(usize::MAX);
    }

    /// Resolves when the cluster's door is open again after it was shut: what was sent meanwhile, TCP
    /// repeats after pauses that double. Never, if it is open already: then the cluster is silent
    /// for another reason.
    pub async fn opens(&self) {
        match self.knock_until_open().await {
            true => self.nudge(),
            false => std::future::pending().await,
        }
    }

    /// The same for a call that waits for its answer: if the door is seen open twice, the call's own
    /// connection may be dead, forgotten by a box on the way, or the server is slow. Returns whether
    /// it is that: then nobody else is told, and the next call dials.
    pub async fn passes_by(&self) -> bool {
        let mut again = self.knock_until_open().await;
        if !again {
            self.wait(KNOCK_PERIOD).await;
            again = self.knock_until_open().await;
        }
        match again {
            true => self.nudge(),
            false => self.cluster.reconnect(),
        }
        !again
    }

    /// Knocks until the door is open. Returns whether it was shut before.
    async fn knock_until_open(&self) -> bool {
        loop {
            let now = self.clock.now();
            let unanswered = self.unanswered.get();
            let period = match self.cluster.knock().await {
                Knock::Open => {
                    self.unanswered.set(0);
                    return unanswered > 0;
                }
                Knock::Mute if unanswered >= MUTE_MAX => MUTE_PERIOD,
                Knock::Mute | Knock::Shut => KNOCK_PERIOD,
            };
            self.unanswered.set(unanswered.saturating_add(1));
            self.clock.sleep_until(now + period).await;
        }
    }

    /// The cluster was put back to an older state: a version of before may lie in its future, where a
    /// watch is silent for ever. Everybody lists again.
    pub fn rewind(&self) {
        log::warn!(
            "the cluster has forgotten what it knew, a restored backup perhaps: all is listed again"
        );
        self.rewinds.set(self.rewinds.get() + 1);
        self.ring();
    }

    pub fn rewinds(&self) -> u32 {
        self.rewinds.get()
    }

    pub async fn wait(&self, span: Duration) {
        self.clock.sleep_until(self.clock.now() + span).await;
    }

    /// Learns from what came of a call.
    fn note(&self, begun: BootTime, failure: Option<&NoAnswer>) {
        let before = self.up.replace(Some(failure.is_none()));
        let turned = before != self.up.get();
        match failure {
            Some(why) => self.note_failure(begun, turned, why),
            None => self.note_answer(turned),
        }
        if turned {
            self.turned.notify(usize::MAX);
        }
    }

    fn note_answer(&self, turned: bool) {
        let now = self.clock.now();
        if self.heard.replace(Some(now)).is_none() {
            log::info!("connected to the cluster");
        } else if !turned {
            return;
        } else if self.silence() >= OUTAGE_MIN {
            let lasted = self.silence().as_secs();
            log::info!("the cluster answers again, after {lasted} s");
        } else if now.since(self.rang_at.get()) < RING_PERIOD {
            return;
        }
        self.ring();
    }

    fn note_failure(&self, begun: BootTime, turned: bool, why: &NoAnswer) {
        let heard = self.heard.get();
        if turned {
            // That this call hung says nothing of the others: the next beat tells.
            let since = heard.map_or(begun, |_| self.clock.now());
            self.silent_since.set(since);
            self.told.set(false);
            self.cluster.reconnect();
        }
        let outage = heard.is_none() || self.silence() >= OUTAGE_MIN;
        if outage && !self.told.replace(true) {
            log::warn!("the cluster does not answer: {why}; the node goes on by itself");
        } else {
            log::debug!("the cluster does not answer: {why}");
        }
    }

    /// Waits before something that failed is tried again; less if an outage ends meanwhile, or if the
    /// cluster asked for a pause itself.
    pub async fn pause(&self, backoff: &mut Backoff, asked: Option<Duration>) {
        let back = self.back.listen();
        let now = self.clock.now();
        if now.since(backoff.last) >= CALM || backoff.rang_at != self.rang_at.get() {
            backoff.reset();
        }
        (backoff.last, backoff.rang_at) = (now, self.rang_at.get());
        // What the cluster asked for is waited in full.
        let span = asked.unwrap_or_else(|| self.jittered(backoff.next()));
        let sleep = self.clock.sleep_until(now + span);
        or(sleep, back).await;
    }

    /// Between three quarters of the span and all of it: nodes that lost the same link together do
    /// not come back in step.
    fn jittered(&self, span: Duration) -> Duration {
        let mut byte = [0];
        self.random.fill(&mut byte);
        span * (768 + u32::from(byte[0])) / 1024
    }
}
