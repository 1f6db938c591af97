//! Following one shim: each wake-up means "look again", never what changed.
//!
//! ```text
//!   Changed ─► list ─┬─ pause is not the recorded one ─► sandbox dead
//!                    └─ a container ended ─► exit.json + last words ─► record(Ended) ─► release
//!   failed  ─► list, after a pause or at the next change
//!   lost    ─► connect again, to a new shim if need be ─► look
//! ```
//! An end is recorded before it is shown, and shown before its leftovers are cleared away: the
//! next container need not wait for `runtime delete`.

use std::rc::{Rc, Weak};
use std::time::Duration;

use async_channel::Receiver;
use futures_lite::future;

use crate::os::task;
use crate::runtime::sandbox::record::{ContainerPhase, ContainerRecord, SandboxPhase};
use crate::runtime::shim::record::{ExitCause, ExitRecord, PodDirectory};
use crate::runtime::shim::wire::{Listed, ListedState, Listing};
use crate::world::{Exit, LocalFuture, RuntimeError, Stamp, Uid};

use super::exit::{self, Ending, Memory};
use super::{Host, container};

/// Between two tries to reach a lost shim, or to take down what one says; doubled each time.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// Runs until the pod is gone, the connection is replaced, or the runtime is dropped.
pub async fn watch(host: Weak<Host>, uid: Uid, changes: Receiver<()>) {
    let mut pause = RECONNECT_FIRST;
    // What was lost between two watchers is found at once.
    let mut again: Option<LocalFuture<'static, ()>> = Some(Box::pin(future::ready(())));
    loop {
        let heard = async { changes.recv().await.is_ok() };
        let connected = match again.take() {
            // What was not seen may have been the last change.
            Some(wake) => {
                future::or(heard, async {
                    wake.await;
                    true
                })
                .await
            }
            None => heard.await,
        };
        if !connected {
            break;
        }
        let Some(host) = host.upgrade() else {
            return;
        };
        match look(&host, &uid).await {
            Ok(()) => pause = RECONNECT_FIRST,
            Err(error) => {
                log::debug!(
                    "look at pod {uid}: {error}; again in {} ms",
                    pause.as_millis()
                );
                again = Some(host.clock.sleep_until(host.clock.now() + pause));
                pause = (pause * 2).min(RECONNECT_MAX);
            }
        }
    }
    pause = RECONNECT_FIRST;
    loop {
        let Some(host) = host.upgrade() else {
            return;
        };
        let wanted = host.mirror.read(&uid, |pod| !pod.leaving);
        if wanted != Some(true) {
            return;
        }
        // `connect` starts the watcher that replaces this one.
        match host.connect(&uid).await {
            Ok(_) => match look(&host, &uid).await {
                Ok(()) => return,
                Err(error) => log::debug!("look at pod {uid}: {error}"),
            },
            Err(error) => {
                let wait = pause.as_millis();
                log::warn!("shim of pod {uid} is lost: {error}; trying again in {wait} ms");
            }
        }
        let wake = host.clock.sleep_until(host.clock.now() + pause);
        drop(host);
        wake.await;
        pause = (pause * 2).min(RECONNECT_MAX);
    }
}

/// Brings the mirror to what the shim has.
pub async fn look(host: &Rc<Host>, uid: &Uid) -> Result<(), RuntimeError> {
    let Some(client) = host.mirror.client(uid) else {
        return Ok(());
    };
    let listing = client.list().await?;
    note_pause(host, uid, &listing);
    let containers = host.mirror.read(uid, |pod| {
        pod.containers.values().cloned().collect::<Vec<_>>()
    });
    let mut outcome = Ok(());
    for record in containers.unwrap_or_default() {
        let directory = format!("{}.{}", record.name, record.attempt);
        let listed = listing.containers.iter().find(|c| c.container == directory);
        // One that cannot be recorded hides no other.
        outcome = outcome.and(note_container(host, uid, &record, listed).await);
    }
    outcome
}

fn note_pause(host: &Host, uid: &Uid, listing: &Listing) {
    host.mirror.change(uid, |pod| {
        let recorded = pod.sandbox.as_ref().map(|record| &record.phase);
        if let Some(SandboxPhase::Ready { pause }) = recorded
            && listing.pause != Some(*pause)
            && pod.dead.is_none()
        {
            pod.dead = Some("its pause process is gone".into());
        }
    });
}

async fn note_container(
    host: &Rc<Host>,
    uid: &Uid,
    record: &ContainerRecord,
    listed: Option<&Listed>,
) -> Result<(), RuntimeError> {
    let state = listed.map(|listed| &listed.state);
    match (&record.phase, state) {
        (ContainerPhase::Ended(_), _) | (_, Some(ListedState::Starting)) => Ok(()),
        (ContainerPhase::Started { .. }, Some(ListedState::Running(_))) => Ok(()),
        (ContainerPhase::Making, Some(ListedState::Running(started))) => {
            let mut record = record.clone();
            record.phase = ContainerPhase::Started {
                started: started.at,
            };
            host.record_container(uid, &record)
        }
        (ContainerPhase::Started { .. }, _) => note_end(host, uid, record).await,
        // Its exit may be here before the answer that it started; without one it is being made by
        // us now, and what a crash left in this state is `recover`'s.
        (ContainerPhase::Making, _) => match seen_exit(host, uid, record) {
            Some(_) => note_end(host, uid, record).await,
            None => Ok(()),
        },
    }
}

async fn note_end(
    host: &Rc<Host>,
    uid: &Uid,
    record: &ContainerRecord,
) -> Result<(), RuntimeError> {
    let seen = seen_exit(host, uid, record);
    let started = match record.phase {
        ContainerPhase::Started { started } => Some(started),
        ContainerPhase::Making | ContainerPhase::Ended(_) => None,
    };
    match seen {
        Some(seen) => {
            let words = last_words(record, &seen).await;
            end(host, uid, record, |_| of_record(&seen, words))
        }
        None => end(host, uid, record, |now| exit::unseen(started, now)),
    }
}

pub(super) fn seen_exit(host: &Host, uid: &Uid, record: &ContainerRecord) -> Option<ExitRecord> {
    let directory = PodDirectory::new(&host.layout.run, uid)
        .container(&format!("{}.{}", record.name, record.attempt))?;
    directory.exit().unwrap_or_else(|error| {
        let name = &record.name;
        log::warn!("exit record of container {name} of pod {uid}: {error}");
        None
    })
}

async fn last_words(record: &ContainerRecord, seen: &ExitRecord) -> String {
    let (file, log) = (record.termination_log.clone(), record.log.clone());
    let (policy, code) = (record.termination_message_policy, seen.code);
    blocking::unblock(move || exit::last_words(&file, policy, &log, code)).await
}

fn of_record(seen: &ExitRecord, words: String) -> Exit {
    match &seen.cause {
        ExitCause::Unknown => exit::unseen(seen.started, seen.finished),
        ExitCause::NeverStarted(text) => exit::not_started(seen.code, text, seen.finished),
        ExitCause::Seen => {
            let ending = Ending {
                code: seen.code,
                signal: seen.signal,
                memory: match seen.oom_killed {
                    true => Memory::RanOut,
                    false => Memory::Sufficed,
                },
                started: seen.started,
                finished: seen.finished,
            };
            exit::exit(&ending, words)
        }
    }
}

/// Records an end, shows it, and clears the instance's leftovers away in the background.
/// Does nothing if the instance has ended already: the first account stands.
/// Errors: it is not recorded, and not shown.
pub fn end(
    host: &Rc<Host>,
    uid: &Uid,
    record: &ContainerRecord,
    exit: impl FnOnce(Stamp) -> Exit,
) -> Result<(), RuntimeError> {
    let Ok(mut record) = host.mirror.container(uid, &record.id) else {
        return Ok(());
    };
    if let ContainerPhase::Ended(_) = record.phase {
        return Ok(());
    }
    let exit = exit(host.stamp());
    if exit.reason == "OOMKilled" {
        let (namespace, pod, name) = (&record.namespace, &record.pod_name, &record.name);
        log::warn!("Pod {namespace}/{pod}: container {name} ran out of memory and was killed");
    }
    record.phase = ContainerPhase::Ended(exit);
    host.record_container(uid, &record).inspect_err(|error| {
        let name = &record.name;
        log::warn!("record the end of container {name} of pod {uid}: {error}");
    })?;
    let (weak, uid) = (Rc::downgrade(host), uid.clone());
    let release = async move {
        let Some(host) = weak.upgrade() else {
            return;
        };
        if let Err(left) = container::release(&host, &uid, &record).await {
            log::debug!("clear away container {} of pod {uid}: {left}", record.name);
        }
    };
    task::spawn(&host.executor, release).detach();
    Ok(())
}
