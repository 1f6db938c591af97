//! Opening the registry: the store is read, or set aside; the node starts either way.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use super::commit::{Committer, Start, VERSION_BLOCK};
use super::desk::Desk;
use super::events::Events;
use super::options::{OpenError, OpenReport, Options, Place};
use super::published::{HistoryLimits, Published, Shared};
use super::replace::Lists;
use super::store::{Directory, Engine, Health, Loaded, Queue, Records};
use super::write::Registry;
use crate::object::{Key, Object};

impl Registry {
    /// Opens the store at `options.place` and publishes what it holds.
    ///
    /// A store that is corrupt, of a newer format, unreadable or on a full or read-only disk does
    /// not stop the node: the report says what happened, and `health` what holds from now on.
    pub async fn open(options: Options) -> Result<(Registry, OpenReport), OpenError> {
        // A lost store has no mark of the versions it gave out. Milliseconds of wall time outrun
        // any counter that takes fewer than a thousand steps a second.
        let fallback = options.clock.wall().as_millisecond().max(1).unsigned_abs();
        let (queue, (records, said), mut loaded) = match options.place {
            Place::Memory => {
                let loaded = Loaded {
                    start: fallback,
                    ..Loaded::default()
                };
                (Queue::Nowhere, (Records::of_nothing(), Vec::new()), loaded)
            }
            Place::Root {
                directory,
                key_credential,
            } => {
                let medium = Arc::new(Directory {
                    root: directory,
                    key_credential,
                });
                let (queue, loaded) = Queue::on_thread(medium.clone(), fallback).await?;
                // After opening, which makes the directory; small and once.
                let records = Records::new(&*medium, options.encryption, &*options.random);
                (queue, records, loaded)
            }
            Place::Inline(medium) => {
                let (engine, loaded) = Engine::open(medium.clone(), fallback)?;
                let records = Records::new(&*medium, options.encryption, &*options.random);
                (Queue::Inline(RefCell::new(engine)), records, loaded)
            }
        };
        loaded.messages.extend(said);
        let (objects, stale, report) = read_all(&records, &loaded);
        let health = match loaded.degraded {
            None => Health::Ok,
            Some(text) => Health::Degraded(text),
        };
        let limits = HistoryLimits {
            changes: options.limits.history_changes,
            bytes: options.limits.history_bytes,
        };
        let shared = Arc::new(Shared::new(Published::new(loaded.start, objects, limits)));
        let committer = Committer::new(
            shared,
            queue,
            records,
            options.random.clone(),
            Start {
                reserved: loaded.start + VERSION_BLOCK,
                health,
                exposed: loaded.exposed,
            },
        );
        let desk = Desk {
            committer,
            clock: options.clock,
            random: options.random,
            node_name: options.node_name,
            limits: options.limits,
            admission: options.admission,
            deciding: RefCell::default(),
            resealing: RefCell::new(stale),
            lists: RefCell::new(Lists::default()),
            events: RefCell::new(Events::default()),
            stated_node: RefCell::default(),
        };
        Ok((
            Registry {
                desk: Rc::new(desk),
            },
            report,
        ))
    }
}

/// Objects of readable records, and which of them are to be sealed anew; the others are named and
/// left where they are.
fn read_all(records: &Records, loaded: &Loaded) -> (Vec<Object>, BTreeSet<Key>, OpenReport) {
    let mut messages = loaded.messages.clone();
    let (mut objects, mut stale) = (Vec::new(), BTreeSet::new());
    for (name, value) in &loaded.records {
        match records.read(name, value) {
            Ok(object) => {
                if !records.is_current(&object.key, value) {
                    stale.insert(object.key.clone());
                }
                objects.push(object);
            }
            Err(text) => messages.push(format!("stored object left out: {text}")),
        }
    }
    let report = OpenReport {
        objects: objects.len(),
        messages,
        begun_anew: loaded.begun_anew,
    };
    (objects, stale, report)
}
