//! Says each problem once when it appears and once when it is gone, in the log and as an event.
//!
//! Never decides anything: the registry holds what became of an object.

use std::collections::BTreeMap;

use crate::object::{Key, Kind, Object, Problem, Standing};
use crate::registry::{EventRecord, Registry, Replaced};

/// What was last said about one source.
#[derive(Default)]
pub struct Reported {
    /// Texts by where they are about: a place's own trouble, skipped names, broken texts.
    texts: BTreeMap<String, String>,
    objects: Vec<(Key, Problem)>,
    unreachable: Option<String>,
}

impl Reported {
    /// Compares with the last call: `now` maps a file or place to what is wrong with it.
    pub fn texts(&mut self, now: BTreeMap<String, String>) {
        for (place, message) in &now {
            if self.texts.get(place) != Some(message) {
                log::warn!("manifest {place}: {message}");
            }
        }
        for place in self.texts.keys().filter(|place| !now.contains_key(*place)) {
            log::info!("manifest {place}: no longer in the way");
        }
        self.texts = now;
    }

    /// What the registry would not take, or took and had something to say about. `broken` are
    /// problems that `texts` has logged already.
    pub fn objects(&mut self, replaced: &Replaced, broken: &[Problem], registry: &Registry) {
        let reader = registry.reader();
        for (key, problem) in &replaced.problems {
            let stale = |object: &Object| matches!(object.standing, Standing::Stale(_));
            // Of a pod that goes on as it was, the kubelet tells.
            if key.kind != Kind::Pod || !reader.get(key).as_deref().is_some_and(stale) {
                publish(registry, key, problem);
            }
        }
        for (key, warning) in &replaced.warnings {
            log::warn!("manifest {}: {key}: {}", warning.at, warning.message);
            publish(registry, key, warning);
        }
        self.objects.retain(|told| {
            let (key, problem) = told;
            let over = replaced.over.contains(told);
            let object = reader.get_packed(key);
            let again =
                |(named, now): &(Key, Problem)| named == key && now.at.file == problem.at.file;
            if over
                && object.is_none_or(|object| *object.standing() == Standing::Accepted)
                && !replaced.problems.iter().any(again)
            {
                log::info!("manifest {}: {key} is accepted or gone", problem.at.file);
            }
            !over
        });
        for told in &replaced.problems {
            let (key, problem) = told;
            if !broken.contains(problem) {
                log::warn!("manifest {}: {key}: {}", problem.at, problem.message);
                self.objects.push(told.clone());
            }
        }
        for key in replaced.removed.iter().filter(|key| key.kind == Kind::Pod) {
            log::info!("{key} ends: its manifest is gone");
        }
    }

    /// The whole source could not be read; everything from it stays.
    pub fn unreachable(&mut self, why: &str) {
        if self.unreachable.as_deref() != Some(why) {
            log::warn!("{why}; keeping what is known from it");
            self.unreachable = Some(why.to_owned());
        }
    }

    pub fn reachable(&mut self, what: &str) {
        if self.unreachable.take().is_some() {
            log::info!("{what}: readable again");
        }
    }
}

/// A Warning event about the object of that key, or the placeholder that stands for it.
fn publish(registry: &Registry, key: &Key, problem: &Problem) {
    let object = registry.reader().get(key);
    registry.record(EventRecord {
        involved: key.clone(),
        uid: object.map_or_else(String::new, |object| object.uid().to_owned()),
        field_path: None,
        warning: true,
        reason: problem.reason.clone(),
        message: problem.to_string(),
    });
}
