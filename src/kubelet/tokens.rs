//! Service account tokens that a pod's volumes show: made for this very pod, kept in memory, renewed
//! long before they end.
//!
//! A new agent makes new ones: nothing of a token is ever on a disk. Each is bound to the pod, so it
//! counts for nothing once the pod is gone. Source: Kubernetes pkg/kubelet/token (token_manager.go).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};

use super::Kubelet;
use crate::object::gather::Gather;
use crate::object::token::{Bound, BoundKind, Issuer, Minted, Wanted};
use crate::object::{Object, Origin};
use crate::world::{BootTime, Stamp};

/// A token older than this is renewed whatever its life is.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// The part of its life, in percent, after which a token is renewed.
const RENEW_AFTER_PERCENT: u32 = 80;
/// Pause before a renewal that failed is tried again, while the old token lasts.
const RETRY: Duration = Duration::from_secs(60);
/// What the wall clock may drift between two looks; more is a step.
const STEP_S: i64 = 5;
/// Life of a token that a volume says nothing about. Source: core/v1 defaults.
const LIFE_DEFAULT_S: u32 = 3600;

/// What a volume asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    /// Empty: the API.
    pub audience: String,
    pub life_s: u32,
}

impl Request {
    pub fn of(source: &ServiceAccountTokenProjection) -> Request {
        let life = source.expiration_seconds.map(u32::try_from);
        Request {
            audience: source.audience.clone().unwrap_or_default(),
            life_s: life.and_then(Result::ok).unwrap_or(LIFE_DEFAULT_S),
        }
    }
}

/// The tokens of one pod. Their texts are secrets: `Debug` does not show them.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    held: BTreeMap<Request, Held>,
    /// Why a token that is asked for is not there.
    missing: BTreeMap<Request, String>,
}

#[derive(Clone, Debug)]
struct Held {
    /// A token is its account's, not that of another with its name.
    account_uid: String,
    minted: Minted,
    maker: Maker,
    renew_at: BootTime,
}

/// Who made a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Whoever the account is of. It may have given less life than was asked for.
    Owner { life_s: Option<u32> },
    /// This node, while the account's cluster does not answer: good for nothing but to let the pod
    /// start.
    StandIn,
}

impl Held {
    fn is_fresh(&self, account_uid: &str, now: Stamp) -> bool {
        self.account_uid == account_uid && now.boot < self.renew_at && self.lasts(now)
    }

    fn is_real(&self) -> bool {
        self.maker != Maker::StandIn
    }

    /// Whether the token counts, as the API reckons.
    fn lasts(&self, now: Stamp) -> bool {
        self.minted.issued <= now.wall && now.wall < self.minted.expires
    }
}

impl Tokens {
    /// Makes what is asked for and missing, old or not of the account of this UID; forgets the rest.
    /// What cannot be made now leaves the token that was there, for as long as that lasts.
    pub fn renew(
        &mut self,
        requests: BTreeSet<Request>,
        account: Result<&str, String>,
        now: Stamp,
        mint: impl Fn(&Request) -> Result<(Minted, Maker), String>,
    ) {
        self.missing.clear();
        self.held.retain(|request, _| requests.contains(request));
        for request in requests {
            let known = self.held.get_mut(&request);
            let made = match &account {
                Err(why) => Err(why.clone()),
                Ok(account) => {
                    if known
                        .as_ref()
                        .is_some_and(|held| held.is_fresh(account, now))
                    {
                        continue;
                    }
                    mint(&request).map(|(minted, maker)| (account.to_string(), minted, maker))
                }
            };
            match (made, known) {
                (Ok((account_uid, minted, maker)), _) => {
                    let after = match maker {
                        Maker::Owner { life_s } => {
                            let life_s = life_s.unwrap_or(u32::MAX).min(request.life_s);
                            let life = Duration::from_secs(life_s.into());
                            (life * RENEW_AFTER_PERCENT / 100).min(AGE_MAX)
                        }
                        Maker::StandIn => RETRY,
                    };
                    let held = Held {
                        account_uid,
                        minted,
                        maker,
                        renew_at: now.boot + after,
                    };
                    self.held.insert(request, held);
                }
                (Err(_), Some(held)) if held.is_real() && held.lasts(now) => {
                    held.renew_at = now.boot + RETRY;
                }
                (Err(why), _) => {
                    self.held.remove(&request);
                    self.missing.insert(request, why);
                }
            }
        }
    }

    /// Which of `requests` `renew` would make anew for an account of this UID.
    pub fn due(&self, requests: &BTreeSet<Request>, account: &str, now: Stamp) -> Vec<Request> {
        let fresh = |request: &&Request| {
            let held = self.held.get(request);
            held.is_some_and(|held| held.is_fresh(account, now))
        };
        requests.iter().filter(|r| !fresh(r)).cloned().collect()
    }

    /// Whether there is a token for it that its owner made and that counts.
    pub fn has_real(&self, request: &Request, now: Stamp) -> bool {
        let held = self.held.get(request);
        held.is_some_and(|held| held.is_real() && held.lasts(now))
    }

    /// Real ones can be had: those that stand in for them are due now. Returns whether there are any.
    pub fn doubt_stand_ins(&mut self, now: BootTime) -> bool {
        let stand_ins = self.held.values_mut();
        let mut any = false;
        for held in stand_ins.filter(|held| held.maker == Maker::StandIn) {
            held.renew_at = now;
            any = true;
        }
        any
    }

    /// All are due now.
    fn doubt(&mut self, now: BootTime) {
        for held in self.held.values_mut() {
            held.renew_at = now;
        }
    }

    /// When the next one has to be renewed; `None` without tokens.
    pub fn renew_at(&self) -> Option<BootTime> {
        self.held.values().map(|held| held.renew_at).min()
    }

    /// Errors: why there is none, in upstream's words.
    pub fn get(&self, request: &Request) -> Result<&str, String> {
        match (self.held.get(request), self.missing.get(request)) {
            (Some(held), _) => Ok(&held.minted.token),
            (None, Some(why)) => Err(format!("failed to fetch token: {why}")),
            (None, None) => Err("failed to fetch token: none was made".to_owned()),
        }
    }
}

/// The node's own tokens are made anew where the time by which they are judged has jumped: they end too
/// early, or do not count yet. `before` and the result are what both clocks show.
pub fn follow_clock(kubelet: &Kubelet, before: Option<Stamp>) -> Stamp {
    let world = &kubelet.core.world;
    let now = Stamp {
        wall: world.clock.credible(),
        ..world.stamp()
    };
    let goes = world.clock.wall() >= now.wall;
    if before.is_some_and(|before| has_jumped(before, now, goes)) {
        for worker in kubelet.workers.borrow().values() {
            if worker.shared.view.borrow().key.origin == Origin::Local {
                worker.shared.memory.borrow_mut().tokens.doubt(now.boot);
                worker.shared.wake();
            }
        }
    }
    now
}

/// `goes`: the wall's clock is believed; if it is not, the time stands still until it is.
fn has_jumped(before: Stamp, now: Stamp, goes: bool) -> bool {
    let went = now.wall.as_second() - before.wall.as_second();
    let passed = now.boot.since(before.boot).as_secs() as i64;
    let least = if goes { passed } else { 0 };
    went < least - STEP_S || went > passed + STEP_S
}

/// What the volumes of a pod ask for.
pub fn requests(pod: &Pod) -> BTreeSet<Request> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let projected = volumes.filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    let tokens = sources.filter_map(|source| source.service_account_token.as_ref());
    tokens.map(Request::of).gathered()
}

/// The account that the pod acts as. A pod of a manifest that names none acts as `default`.
pub fn account_name(pod: &Pod) -> &str {
    let name = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref());
    name.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// Makes a token for a pod that runs on this node.
pub fn mint(
    issuer: &Issuer,
    account: &Object,
    pod: &Pod,
    node: Option<(String, String)>,
    request: &Request,
    now: jiff::Timestamp,
) -> Result<Minted, String> {
    let audiences = Some(request.audience.clone()).filter(|audience| !audience.is_empty());
    let wanted = Wanted {
        account,
        audiences: audiences.into_iter().collect(),
        lifetime: Duration::from_secs(request.life_s.into()),
        bound: Some(Bound {
            kind: BoundKind::Pod,
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }),
        node,
    };
    issuer.mint(&wanted, now)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn at(seconds: u64) -> Stamp {
        let wall = 1_750_000_000 + i64::try_from(seconds).expect("small");
        Stamp {
            boot: BootTime::from_duration(Duration::from_secs(seconds)),
            wall: Timestamp::from_second(wall).expect("in range"),
        }
    }

    fn request(life_s: u32) -> Request {
        Request {
            audience: String::new(),
            life_s,
        }
    }

    /// A token that says when, for whom and for how long it was made.
    fn renew(tokens: &mut Tokens, life_s: u32, account: Result<&str, String>, now: Stamp) {
        tokens.renew([request(life_s)].into(), account.clone(), now, |request| {
            let life = Duration::from_secs(request.life_s.into());
            let uid = account.clone().unwrap_or_default();
            let minted = Minted {
                token: format!("{uid}@{}", now.boot.as_duration().as_secs()),
                issued: now.wall,
                expires: now.wall.saturating_add(life).expect("in range"),
            };
            Ok((minted, Maker::Owner { life_s: None }))
        });
    }

    #[test]
    fn tokens_are_renewed_at_four_fifths_of_their_life_or_after_a_day() {
        let robot = "u1";
        for (life_s, renewed_at) in [(600, 480), (3607, 2885), (7 * 86400, 86400)] {
            let mut tokens = Tokens::default();
            renew(&mut tokens, life_s, Ok(robot), at(0));
            let due = tokens.renew_at().expect("a token").as_duration();
            assert_eq!(due.as_secs(), renewed_at, "{life_s}");
            renew(&mut tokens, life_s, Ok(robot), at(renewed_at - 1));
            assert_eq!(tokens.get(&request(life_s)), Ok("u1@0"));
            let now = renewed_at + 1;
            renew(&mut tokens, life_s, Ok(robot), at(now));
            assert_eq!(tokens.get(&request(life_s)), Ok(&*format!("u1@{now}")));
        }
    }

    #[test]
    fn tokens_are_made_anew_after_a_doubt() {
        let mut tokens = Tokens::default();
        renew(&mut tokens, 600, Ok("u1"), at(0));
        tokens.doubt(at(9).boot);
        assert_eq!(tokens.renew_at(), Some(at(9).boot));
        renew(&mut tokens, 600, Ok("u1"), at(9));
        assert_eq!(tokens.get(&request(600)), Ok("u1@9"));
    }

    #[test]
    fn a_token_that_was_given_less_life_than_asked_for_is_renewed_in_time() {
        let mut tokens = Tokens::default();
        tokens.renew([request(86_400)].into(), Ok("u1"), at(0), |_| {
            let minted = Minted {
                token: "short".to_owned(),
                issued: at(0).wall,
                expires: at(3600).wall,
            };
            Ok((minted, Maker::Owner { life_s: Some(3600) }))
        });
        assert_eq!(tokens.renew_at(), Some(at(2880).boot));
    }

    #[test]
    fn a_token_is_of_one_account_and_lasts_while_the_account_is_away() {
        let mut tokens = Tokens::default();
        renew(&mut tokens, 600, Ok("u1"), at(0));
        renew(&mut tokens, 600, Ok("u2"), at(1));
        assert_eq!(tokens.get(&request(600)), Ok("u2@1"));
        let gone = || Err("serviceaccounts \"robot\" not found".to_owned());
        renew(&mut tokens, 600, gone(), at(500));
        assert_eq!(tokens.get(&request(600)), Ok("u2@1"));
        assert_eq!(tokens.renew_at(), Some(at(560).boot));
        renew(&mut tokens, 600, gone(), at(601));
        let why = "failed to fetch token: serviceaccounts \"robot\" not found";
        assert_eq!(tokens.get(&request(600)), Err(why.to_owned()));
        assert_eq!(tokens.renew_at(), None);
    }

    #[test]
    fn a_clock_that_was_set_makes_tokens_anew() {
        let robot = "u1";
        for wall in [
            at(10_000).wall,
            at(0).wall.saturating_add(Duration::ZERO).expect("x"),
        ] {
            let mut tokens = Tokens::default();
            renew(&mut tokens, 600, Ok(robot), at(5));
            let now = Stamp { wall, ..at(6) };
            renew(&mut tokens, 600, Ok(robot), now);
            assert_eq!(tokens.get(&request(600)), Ok("u1@6"));
        }
    }

    #[test]
    fn a_clock_jumps_when_it_is_set_and_not_while_nobody_believes_it() {
        for (went, goes, jumped) in [
            (10, true, false),
            (14, true, false),
            (16, true, true),
            (4, true, true),
            (-86_400, true, true),
            // As late as it is known to be at least, again and again.
            (0, false, false),
            // A server has told the time, or the clock was set back to before that.
            (3600, false, true),
            (-86_400, false, true),
        ] {
            let wall = at(100).wall.as_second() + went;
            let now = Stamp {
                wall: Timestamp::from_second(wall).expect("in range"),
                ..at(110)
            };
            assert_eq!(has_jumped(at(100), now, goes), jumped, "{went} {goes}");
        }
    }

    #[test]
    fn a_stand_in_is_replaced_as_soon_as_its_owner_can_be_asked() {
        let mut tokens = Tokens::default();
        let minted = |text: &str, now: Stamp| Minted {
            token: text.to_owned(),
            issued: now.wall,
            expires: now
                .wall
                .saturating_add(Duration::from_secs(600))
                .expect("in range"),
        };
        let asked = BTreeSet::from([request(600)]);
        let now = at(0);
        tokens.renew(asked.clone(), Ok("u"), now, |_| {
            Ok((minted("ours", now), Maker::StandIn))
        });
        assert!(!tokens.has_real(&request(600), now));
        assert_eq!(tokens.due(&asked, "u", at(59)), []);
        // Once its owner says no, there is none.
        let mut denied = tokens.clone();
        denied.renew(asked.clone(), Ok("u"), at(60), |_| Err("403 no".to_owned()));
        let held = denied.get(&request(600));
        assert_eq!(held, Err("failed to fetch token: 403 no".to_owned()));
        assert!(tokens.doubt_stand_ins(at(5).boot));
        assert_eq!(tokens.due(&asked, "u", at(5)), [request(600)]);
        let now = at(5);
        tokens.renew(asked.clone(), Ok("u"), now, |_| {
            Ok((minted("theirs", now), Maker::Owner { life_s: None }))
        });
        assert_eq!(tokens.get(&request(600)), Ok("theirs"));
        assert!(tokens.has_real(&request(600), now) && !tokens.doubt_stand_ins(at(6).boot));
    }

    #[test]
    fn what_is_no_longer_asked_for_is_forgotten() {
        let mut tokens = Tokens::default();
        renew(&mut tokens, 600, Ok("u1"), at(0));
        tokens.renew(BTreeSet::new(), Ok("u1"), at(1), |_| {
            Err("nothing is asked for".to_owned())
        });
        assert_eq!(tokens.renew_at(), None);
    }
}
