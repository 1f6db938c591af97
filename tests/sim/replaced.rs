//! Pods of manifests that were edited. Edited back, a manifest is of the same UID again, and of a new pod.

use std::cell::RefCell;
use std::collections::BTreeSet;

use lowtide::world::Uid;

use crate::kernel::Kernel;
use crate::real::NODE_NAME;
use crate::spec::Desired;

#[derive(Default)]
pub struct Replaced(RefCell<BTreeSet<Uid>>);

impl Replaced {
    /// Another manifest of this name has taken the place of theirs.
    pub fn note<'a>(&self, name: &str, seen: impl Iterator<Item = &'a Desired>) {
        let name = format!("{name}-{NODE_NAME}");
        let theirs = seen.filter(|pod| pod.is_static && pod.name == name);
        self.0
            .borrow_mut()
            .extend(theirs.map(|pod| pod.uid.clone()));
    }

    /// Those of which nothing is left.
    pub fn gone(&self, desired: &[Desired], kernel: &Kernel) -> BTreeSet<Uid> {
        let wanted = |uid: &Uid| desired.iter().any(|pod| pod.uid == *uid);
        let kept = |uid: &Uid| wanted(uid) || kernel.pods.contains_key(uid);
        let all = self.0.take();
        let (kept, gone) = all.into_iter().partition(kept);
        self.0.replace(kept);
        gone
    }
}
