//! `world::Disk` on two real directories. The work is done on the pool of blocking threads: the
//! thread that owns the node's state never waits for a disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::thread;
use crate::world::{Area, Disk, DiskError, LocalFuture};

/// Larger files are not the node's own: pod records are some tens of kilobytes.
const READ_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// In ROOT: room for the record of an end when the disk is full, since a pod that is evicted gives back
/// what it has only after that.
const BALLAST: &str = ".ballast";
const BALLAST_BYTES: usize = 64 * 1024;

/// ROOT and RUN, held open: a later rename of a parent changes nothing.
#[derive(Debug)]
pub struct SystemDisk {
    areas: Arc<Areas>,
}

#[derive(Debug)]
struct Areas {
    root: OwnedFd,
    run: OwnedFd,
    /// Distinguishes temporary files of writers at the same time.
    next: AtomicU64,
    ballast_spent: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    No,
    Yes,
}

impl SystemDisk {
    /// Both directories must exist.
    pub fn open(root: &Path, run: &Path) -> io::Result<SystemDisk> {
        Ok(SystemDisk {
            areas: Arc::new(Areas {
                root: open_directory(rustix::fs::CWD, root)?,
                run: open_directory(rustix::fs::CWD, run)?,
                next: AtomicU64::new(0),
                ballast_spent: AtomicBool::new(false),
            }),
        })
    }

    /// Runs `work` on a blocking thread; `what` and the path name it in errors.
    fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        work: impl FnOnce(&Areas, &str) -> io::Result<T> + Send + 'static,
    ) -> LocalFuture<'_, Result<T, DiskError>> {
        let areas = self.areas.clone();
        let path = path.to_owned();
        Box::pin(blocking::unblock(move || {
            work(&areas, &path).map_err(|e| DiskError::from_io(&format!("{what} {path}"), &e))
        }))
    }
}

impl Disk for SystemDisk {
    fn read(&self, area: Area, path: &str) -> LocalFuture<'_, Result<Option<Vec<u8>>, DiskError>> {
        self.run("read", path, move |areas, path| areas.read(area, path))
    }

    fn write(
        &self,
        area: Area,
        path: &str,
        bytes: Vec<u8>,
    ) -> LocalFuture<'_, Result<(), DiskError>> {
        self.run("write", path, move |areas, path| {
            areas.write(area, path, &bytes, Flush::No)
        })
    }

    fn write_durable(
        &self,
        area: Area,
        path: &str,
        bytes: Vec<u8>,
    ) -> LocalFuture<'_, Result<(), DiskError>> {
        self.run("write", path, move |areas, path| {
            areas.write_durable(area, path, &bytes)
        })
    }

    fn remove(&self, area: Area, path: &str) -> LocalFuture<'_, Result<(), DiskError>> {
        self.run("remove", path, move |areas, path| areas.remove(area, path))
    }

    fn try_write(&self, area: Area) -> LocalFuture<'_, Result<(), DiskError>> {
        self.run("write", ".write-check", move |areas, path| {
            let written = areas.write(area, path, &[b'x'; 64], Flush::No);
            let removed = areas.remove(area, path);
            if area == Area::Root && written.is_ok() {
                areas.keep_ballast();
            }
            written.and(removed)
        })
    }

    fn list(&self, area: Area, directory: &str) -> LocalFuture<'_, Result<Vec<String>, DiskError>> {
        self.run("list", directory, move |areas, path| areas.list(area, path))
    }
}

impl Areas {
    fn area(&self, area: Area) -> &OwnedFd {
        match area {
            Area::Root => &self.root,
            Area::Run => &self.run,
        }
    }

    fn read(&self, area: Area, path: &str) -> io::Result<Option<Vec<u8>>> {
        let (parents, name) = split(path)?;
        let Some(directory) = absent(self.descend(area, parents))? else {
            return Ok(None);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&directory, name, flags, Mode::empty());
        let Some(file) = absent(opened.map_err(io::Error::from))? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let mut bounded = File::from(file).take(READ_BYTES_MAX + 1);
        bounded.read_to_end(&mut bytes)?;
        if bytes.len() as u64 > READ_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes))
    }

    fn write(&self, area: Area, path: &str, bytes: &[u8], flush: Flush) -> io::Result<()> {
        let (parents, name) = split(path)?;
        let directory = self.make_directories(area, parents, flush)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = format!(".{name}.{number}.tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = rustix::fs::openat(&directory, &temporary, flags | OFlags::CLOEXEC, mode)?;
        let mut file = File::from(fd);
        let written = file
            .write_all(bytes)
            .and_then(|()| match flush {
                Flush::Yes => thread::flush(&file),
                Flush::No => Ok(()),
            })
            .and_then(|()| {
                Ok(rustix::fs::renameat(
                    &directory, &temporary, &directory, name,
                )?)
            });
        if let Err(error) = written {
            let _best_effort = rustix::fs::unlinkat(&directory, &temporary, AtFlags::empty());
            return Err(error);
        }
        match flush {
            Flush::Yes => thread::flush(&directory),
            Flush::No => Ok(()),
        }
    }

    /// On a full disk it takes the place of the ballast.
    fn write_durable(&self, area: Area, path: &str, bytes: &[u8]) -> io::Result<()> {
        let written = self.write(area, path, bytes, Flush::Yes);
        match &written {
            Err(error) if error.kind() == io::ErrorKind::StorageFull && area == Area::Root => {
                self.ballast_spent.store(true, Ordering::Relaxed);
                self.remove(area, BALLAST)?;
                return self.write(area, path, bytes, Flush::Yes);
            }
            Ok(()) if self.ballast_spent.load(Ordering::Relaxed) => self.keep_ballast(),
            Ok(()) | Err(_) => {}
        }
        written
    }

    fn keep_ballast(&self) {
        let kept = match self.read(Area::Root, BALLAST) {
            Ok(Some(kept)) if kept.len() == BALLAST_BYTES => Ok(()),
            _ => self.write(Area::Root, BALLAST, &vec![b'.'; BALLAST_BYTES], Flush::No),
        };
        self.ballast_spent.store(kept.is_err(), Ordering::Relaxed);
    }

    fn remove(&self, area: Area, path: &str) -> io::Result<()> {
        let (parents, name) = split(path)?;
        let Some(directory) = absent(self.descend(area, parents))? else {
            return Ok(());
        };
        let removed = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
        absent(removed.map_err(io::Error::from)).map(|_| ())
    }

    fn list(&self, area: Area, path: &str) -> io::Result<Vec<String>> {
        let Some(directory) = absent(self.descend(area, path))? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.starts_with('.') && name.ends_with(".tmp");
            if name != "." && name != ".." && !ours {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opens a directory below the area, component by component, through no symlink.
    fn descend(&self, area: Area, path: &str) -> io::Result<OwnedFd> {
        let mut directory = self.area(area).try_clone()?;
        for component in components(path) {
            directory = open_directory(directory.as_fd(), Path::new(component?))?;
        }
        Ok(directory)
    }

    fn make_directories(&self, area: Area, path: &str, flush: Flush) -> io::Result<OwnedFd> {
        let mut directory = self.area(area).try_clone()?;
        for component in components(path) {
            let component = component?;
            let made = rustix::fs::mkdirat(&directory, component, Mode::from_raw_mode(0o750));
            match (made, flush) {
                // The new entry must survive as well as what is put below it.
                (Ok(()), Flush::Yes) => thread::flush(&directory)?,
                (Ok(()), Flush::No) | (Err(rustix::io::Errno::EXIST), _) => {}
                (Err(error), _) => return Err(error.into()),
            }
            directory = open_directory(directory.as_fd(), Path::new(component))?;
        }
        Ok(directory)
    }
}

/// Size of the file system that `path` is on.
pub fn capacity_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}

/// What is free there for anybody.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn open_directory(at: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

fn components(path: &str) -> impl Iterator<Item = io::Result<&str>> {
    path.split('/')
        .filter(|part| !part.is_empty())
        .map(|part| match part {
            "." | ".." => Err(io::ErrorKind::InvalidInput.into()),
            name => Ok(name),
        })
}

/// Parent directories and last component.
fn split(path: &str) -> io::Result<(&str, &str)> {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "" | "." | ".." => Err(io::ErrorKind::InvalidInput.into()),
        name => Ok((parents, name)),
    }
}

/// "Does not exist" as `None`.
fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_listed_and_removed_below_their_area_only() {
        let home = tempfile::tempdir().expect("temporary directory");
        let (root, run) = (home.path().join("root"), home.path().join("run"));
        std::fs::create_dir(&root).expect("root");
        std::fs::create_dir(&run).expect("run");
        let disk = SystemDisk::open(&root, &run).expect("open");
        async_io::block_on(async {
            assert_eq!(disk.read(Area::Root, "pods/a/x").await, Ok(None));
            assert_eq!(disk.list(Area::Root, "pods").await, Ok(vec![]));
            assert_eq!(disk.remove(Area::Root, "pods/a/x").await, Ok(()));
            for text in ["one", "two"] {
                let bytes = text.as_bytes().to_vec();
                let written = disk
                    .write_durable(Area::Root, "pods/a/x", bytes.clone())
                    .await;
                assert_eq!(written, Ok(()));
                assert_eq!(disk.read(Area::Root, "pods/a/x").await, Ok(Some(bytes)));
            }
            assert_eq!(disk.read(Area::Run, "pods/a/x").await, Ok(None));
            assert_eq!(disk.try_write(Area::Run).await, Ok(()));
            assert_eq!(disk.list(Area::Run, "").await, Ok(vec![]));
            assert_eq!(disk.list(Area::Root, "pods/a").await, Ok(vec!["x".into()]));
            assert!(disk.read(Area::Root, "../run/x").await.is_err());
            std::os::unix::fs::symlink("/etc/passwd", root.join("link")).expect("link");
            assert!(disk.read(Area::Root, "link").await.is_err());
            std::os::unix::fs::symlink("/etc", root.join("etc")).expect("link");
            assert!(disk.read(Area::Root, "etc/passwd").await.is_err());
            assert_eq!(disk.remove(Area::Root, "pods/a/x").await, Ok(()));
            assert_eq!(disk.list(Area::Root, "pods/a").await, Ok(vec![]));
        });
    }

    #[test]
    fn a_full_disk_takes_a_durable_record_in_the_place_of_the_ballast() {
        if super::super::process::effective_uid() != 0 {
            eprintln!("skipped: mounting needs root");
            return;
        }
        let home = tempfile::tempdir().expect("temporary directory");
        let root = home.path().join("root");
        std::fs::create_dir(&root).expect("root");
        super::super::volume_fs::mount_tmpfs(&root, "size=256k").expect("mount");
        let disk = SystemDisk::open(&root, home.path()).expect("open");
        let ballast = root.join(BALLAST);
        async_io::block_on(async {
            assert_eq!(disk.try_write(Area::Root).await, Ok(()));
            assert!(ballast.exists());
            let filler = root.join("filler");
            let filled = std::fs::write(&filler, vec![0; 256 * 1024]);
            assert_eq!(
                filled.map_err(|e| e.kind()),
                Err(io::ErrorKind::StorageFull)
            );
            let bytes = vec![b'e'; 5000];
            let refused = disk.write(Area::Root, "pods/a/x", bytes.clone()).await;
            assert!(refused.is_err());
            let written = disk.write_durable(Area::Root, "pods/a/x", bytes).await;
            assert_eq!(written, Ok(()));
            assert!(!ballast.exists());
            std::fs::remove_file(&filler).expect("removed");
            let written = disk.write_durable(Area::Root, "pods/b/x", vec![b'e']).await;
            assert_eq!(written, Ok(()));
            assert!(ballast.exists());
        });
        drop(disk);
        super::super::volume_fs::unmount(&root).expect("unmounted");
    }
}
