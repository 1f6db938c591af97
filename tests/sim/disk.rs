//! `world::Disk` with a memory of what was flushed.
//!
//! A write that was not flushed is, after a power cut, the old file, the new one or none; a removal
//! may be undone. RUN is a tmpfs: it survives the agent and no reboot.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use lowtide::world::{Area, Disk, DiskError, LocalFuture, Uid};

use crate::host::{DiskMode, Host, boxed, give, question};
use crate::random::Stream;

const OPERATION: Duration = Duration::from_micros(80);
const FLUSH: Duration = Duration::from_millis(6);

type Tree = BTreeMap<String, Vec<u8>>;

#[derive(Default)]
pub struct Files {
    root: Tree,
    flushed: Tree,
    run: Tree,
    /// Changes of ROOT so far: an idle node makes none.
    pub writes: u64,
}

impl Files {
    fn tree(&mut self, area: Area) -> &mut Tree {
        match area {
            Area::Root => &mut self.root,
            Area::Run => &mut self.run,
        }
    }

    fn write(&mut self, area: Area, path: &str, bytes: &[u8]) {
        self.writes += u64::from(area == Area::Root);
        self.tree(area).insert(path.to_owned(), bytes.to_vec());
    }

    fn flush(&mut self, path: &str) {
        match self.root.get(path) {
            Some(bytes) => self.flushed.insert(path.to_owned(), bytes.clone()),
            None => self.flushed.remove(path),
        };
    }

    /// As long after the last write.
    pub fn flush_all(&mut self) {
        self.flushed = self.root.clone();
    }

    pub fn remove_below(&mut self, area: Area, directory: &str) {
        let prefix = format!("{directory}/");
        self.tree(area).retain(|path, _| !path.starts_with(&prefix));
    }

    pub fn read(&self, area: Area, path: &str) -> Option<Vec<u8>> {
        match area {
            Area::Root => self.root.get(path).cloned(),
            Area::Run => self.run.get(path).cloned(),
        }
    }

    /// Names directly in a directory.
    pub fn list(&self, area: Area, directory: &str) -> Vec<String> {
        let tree = match area {
            Area::Root => &self.root,
            Area::Run => &self.run,
        };
        let prefix = format!("{directory}/");
        let names: BTreeSet<&str> = tree
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .map(|rest| rest.split('/').next().unwrap_or(rest))
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }

    pub fn power_cut(&mut self, luck: &Stream) {
        self.run.clear();
        let paths: BTreeSet<String> = self
            .root
            .keys()
            .chain(self.flushed.keys())
            .cloned()
            .collect();
        for path in paths {
            let (new, old) = (self.root.get(&path), self.flushed.get(&path));
            if new == old {
                continue;
            }
            let survivor = match luck.between(0, 2) {
                0 => new.cloned(),
                1 => old.cloned(),
                // Rename and data may reach the disk in either order: the name without the file.
                _ if new.is_some() => None,
                _ => old.cloned(),
            };
            match survivor {
                Some(bytes) => self.root.insert(path, bytes),
                None => self.root.remove(&path),
            };
        }
        self.flushed = self.root.clone();
    }
}

pub struct SimDisk(pub Rc<Host>);

impl SimDisk {
    fn trouble(&self, area: Area, what: &str) -> Option<DiskError> {
        let faults = self.0.faults.borrow();
        match (area, faults.disk) {
            (Area::Root, DiskMode::Full) => {
                Some(DiskError::Full(format!("{what}: no space left on device")))
            }
            (Area::Root, DiskMode::ReadOnly) => Some(DiskError::ReadOnly(format!(
                "{what}: read-only file system"
            ))),
            (Area::Root | Area::Run, _) if self.0.luck.chance(faults.disk_fails) => {
                Some(DiskError::Other(format!("{what}: input/output error")))
            }
            (Area::Root | Area::Run, _) => None,
        }
    }

    /// Applies `change`, then resolves; with the agent's death in between only the first happens.
    async fn act(
        &self,
        what: String,
        area: Area,
        took: Duration,
        change: impl FnOnce(&mut Files) + 'static,
        finish: impl FnOnce(&mut Files) + 'static,
    ) -> Result<(), DiskError> {
        let host = &self.0;
        host.trace.note(|| format!("disk {what}"));
        let trouble = self.trouble(area, &what);
        let (asker, answer) = question();
        host.later_in_agent(host.span(OPERATION), move |host| {
            if let Some(error) = trouble {
                host.trace.note(|| format!("disk {error}"));
                give(&asker, Err(error));
                return;
            }
            change(&mut host.files.borrow_mut());
            host.later_in_agent(host.span(took), move |host| {
                finish(&mut host.files.borrow_mut());
                give(&asker, Ok(()));
            });
        });
        answer.await
    }
}

impl Disk for SimDisk {
    fn read(&self, area: Area, path: &str) -> LocalFuture<'_, Result<Option<Vec<u8>>, DiskError>> {
        let path = path.to_owned();
        boxed(async move {
            let (asker, answer) = question();
            self.0.later_in_agent(self.0.span(OPERATION), move |host| {
                give(&asker, Ok(host.files.borrow().read(area, &path)));
            });
            answer.await
        })
    }

    fn write(
        &self,
        area: Area,
        path: &str,
        bytes: Vec<u8>,
    ) -> LocalFuture<'_, Result<(), DiskError>> {
        let path = path.to_owned();
        let what = format!("write {area:?}/{path}");
        boxed(self.act(
            what,
            area,
            OPERATION,
            move |files| files.write(area, &path, &bytes),
            |_| {},
        ))
    }

    fn write_durable(
        &self,
        area: Area,
        path: &str,
        bytes: Vec<u8>,
    ) -> LocalFuture<'_, Result<(), DiskError>> {
        let path = path.to_owned();
        let what = format!("write durably {area:?}/{path}");
        let flushed = path.clone();
        boxed(self.act(
            what,
            area,
            FLUSH,
            move |files| files.write(area, &path, &bytes),
            move |files| {
                if area == Area::Root {
                    files.flush(&flushed);
                }
            },
        ))
    }

    fn try_write(&self, area: Area) -> LocalFuture<'_, Result<(), DiskError>> {
        let what = format!("try to write {area:?}");
        boxed(self.act(what, area, OPERATION, |_| {}, |_| {}))
    }

    fn remove(&self, area: Area, path: &str) -> LocalFuture<'_, Result<(), DiskError>> {
        let path = path.to_owned();
        let what = format!("remove {area:?}/{path}");
        boxed(self.act(
            what,
            area,
            OPERATION,
            move |files| {
                files.tree(area).remove(&path);
            },
            |_| {},
        ))
    }

    fn list(&self, area: Area, directory: &str) -> LocalFuture<'_, Result<Vec<String>, DiskError>> {
        let directory = directory.to_owned();
        boxed(async move {
            let (asker, answer) = question();
            self.0.later_in_agent(self.0.span(OPERATION), move |host| {
                let mut names = host.files.borrow().list(area, &directory);
                if (area, directory.as_str()) == (Area::Root, "pods") {
                    // Volumes lie in the same directory as the records.
                    let mounted = host.mounted.borrow();
                    names.extend(mounted.directories().iter().map(Uid::to_string));
                    names.sort();
                    names.dedup();
                }
                give(&asker, Ok(names));
            });
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_keeps_what_was_flushed_and_nothing_else_for_certain() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..64 {
            let luck = Stream::new(seed);
            let mut files = Files::default();
            files.write(Area::Root, "pods/a/final.json", b"old");
            files.flush("pods/a/final.json");
            files.write(Area::Root, "pods/b/pod.json", b"kept");
            files.flush("pods/b/pod.json");
            files.write(Area::Root, "pods/a/final.json", b"new");
            files.write(Area::Run, "pods/a/kubelet.json", b"gone");
            files.power_cut(&luck);
            assert_eq!(files.read(Area::Run, "pods/a/kubelet.json"), None);
            let kept = files.read(Area::Root, "pods/b/pod.json");
            assert_eq!(kept.as_deref(), Some(b"kept".as_slice()));
            outcomes.insert(files.read(Area::Root, "pods/a/final.json"));
        }
        assert_eq!(outcomes.len(), 3, "old, new and missing all occur");
    }
}
