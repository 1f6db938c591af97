//! What a cluster's controller-manager does and a node of its own needs.
//!
//! ```text
//!  namespaces ── the built-in ones; in each the account `default` and `kube-root-ca.crt`
//!  emptying ──── a deleted namespace: its content goes, then it does
//!  secrets ───── Secrets of type service-account-token: filled, listed, ended with their account
//!  garbage ───── what an object owned goes after it, before it, or stays
//! ```
//! Each is a loop over the registry: look, do what differs, wait for a change. Nothing here keeps
//! time but for pauses after something failed, nothing touches what is of a manifest or of a remote
//! cluster, and nothing happens while nothing changes.
//! Source: Kubernetes pkg/controller/{namespace,serviceaccount,certificates/rootcacertpublisher,
//! garbagecollector}.

mod emptying;
mod garbage;
mod namespaces;
mod owners;
mod secrets;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_executor::{LocalExecutor, Task};
use event_listener::Event;
use futures_lite::future::or;

use crate::object::token::Issuer;
use crate::object::user::{GROUP_AUTHENTICATED, GROUP_MASTERS};
use crate::object::{Source, User};
use crate::os::task;
use crate::registry::{Actor, Error, Reader, Registry};
use crate::world::Clock;

/// Pauses after a failure: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The CA's certificate as clients are given it; it changes when the CA is renewed.
pub struct Trust {
    certificate: RefCell<String>,
    changed: Event,
}

impl Trust {
    /// `certificate`: PEM.
    pub fn new(certificate: &str) -> Rc<Trust> {
        Rc::new(Trust {
            certificate: RefCell::new(certificate.to_owned()),
            changed: Event::new(),
        })
    }

    pub fn replace(&self, certificate: &str) {
        if *self.certificate.borrow() != certificate {
            *self.certificate.borrow_mut() = certificate.to_owned();
            self.changed.notify(usize::MAX);
        }
    }

    fn certificate(&self) -> String {
        self.certificate.borrow().clone()
    }
}

/// What the controllers work with.
#[derive(Clone)]
pub struct Controllers {
    pub registry: Registry,
    pub clock: Rc<dyn Clock>,
    pub trust: Rc<Trust>,
    pub issuer: Arc<Issuer>,
    /// Where pods find the API; `None` if they do not.
    pub api: Option<SocketAddr>,
}

impl Controllers {
    /// Makes what must be there before anybody looks.
    pub async fn prepare(&self) {
        // What fails is tried again, and told, by the loop.
        namespaces::turn(self).await;
    }

    /// Starts the loops; dropping the tasks ends them.
    pub fn start(self, executor: &Rc<LocalExecutor<'static>>) -> Vec<Task<()>> {
        vec![
            task::spawn(executor, namespaces::keep(self.clone())),
            task::spawn(executor, secrets::keep(self.clone())),
            task::spawn(executor, garbage::collect(self)),
        ]
    }

    fn reader(&self) -> Reader {
        self.registry.reader()
    }
}

/// The identity behind what the controllers write.
fn actor() -> Actor {
    let groups = [GROUP_MASTERS, GROUP_AUTHENTICATED];
    let user = User::new("system:lowtide:controller", &groups);
    Actor::new(Source::Api, Arc::new(user))
}

/// What became of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Done, or not ours to do, or overtaken by a change that is looked at anyway.
    Settled,
    /// To be tried again after a pause.
    Failed,
}

impl Outcome {
    fn of<T>(result: Result<T, Error>) -> Outcome {
        match result {
            Ok(_)
            | Err(
                Error::NotFound(_)
                | Error::AlreadyExists(_)
                | Error::Conflict { .. }
                | Error::DeletionConflict { .. }
                | Error::NotOwner { .. },
            ) => Outcome::Settled,
            Err(error) => {
                log::warn!("controller: {error}; tried again");
                Outcome::Failed
            }
        }
    }

    fn and(self, other: Outcome) -> Outcome {
        match self {
            Outcome::Settled => other,
            Outcome::Failed => Outcome::Failed,
        }
    }
}

/// Growing pauses while something fails.
#[derive(Default)]
struct Patience {
    pause: Option<Duration>,
}

impl Patience {
    /// Waits for `change`; after a failure, for a while whatever changes: it may be the failing
    /// write's own echo.
    async fn wait(&mut self, clock: &dyn Clock, last: Outcome, change: impl Future<Output = ()>) {
        match last {
            Outcome::Settled => {
                self.pause = None;
                change.await;
            }
            Outcome::Failed => {
                let pause = self
                    .pause
                    .map_or(PAUSE_MIN, |last| (last * 2).min(PAUSE_MAX));
                self.pause = Some(pause);
                clock.sleep_until(clock.now() + pause).await;
            }
        }
    }
}

/// Waits for a change or for another certificate.
async fn either(change: impl Future<Output = ()>, trust: impl Future<Output = ()>) {
    or(change, trust).await;
}
