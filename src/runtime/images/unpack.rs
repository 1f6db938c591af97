//! One layer's tar stream becomes an overlayfs directory.
//!
//! The stream is hostile. Every path is resolved by the kernel inside the layer's own directory
//! ([`Root`]), names with `..` or a NUL are refused by name, and entries, bytes and headers are
//! counted. Whiteouts become overlayfs's own signs. Nothing is ever read back from the
//! stream's metadata without a bound.
//!
//! ```text
//!   .wh.NAME        character device 0/0 NAME
//!   .wh..wh..opq    trusted.overlay.opaque=y on the directory
//! ```
//! Sources: OCI image-spec layer.md; kernel overlayfs.rst ("whiteouts and opaque directories").

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use tar::{Archive, Entry, EntryType};

use super::tree::{Checksums, Tree};
use crate::os::fs_at::{Directory, Kind, Modified, Node, Owner, Root};
use crate::world::PullError;

/// Bytes that headers, long names and PAX records of one entry may take.
const HEADER_BYTES_MAX: u64 = 1024 * 1024;
/// Longest path, as the kernel has it (`PATH_MAX`, limits.h).
const PATH_BYTES_MAX: usize = 4096;
/// Copy buffer, and how often free space is looked at: every 256th buffer.
const BUFFER_BYTES: usize = 64 * 1024;
const BUFFERS_PER_SPACE_CHECK: u64 = 256;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// aufs's own bookkeeping: ignored, as other runtimes do.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const XATTR_PREFIX: &str = "SCHILY.xattr.";

/// What one layer may grow to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub entries_max: u64,
    pub bytes_max: u64,
    /// Free space that unpacking leaves to everybody else.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries_max: 1_000_000,
            bytes_max: 16 << 30,
            reserve_bytes: 64 << 20,
        }
    }
}

/// Unpacks `stream` (plain tar) into the empty directory `into` and describes what lies there.
///
/// Reads up to the end-of-archive mark only. Errors: `Local`, naming the entry.
pub fn unpack(stream: impl Read, into: &Path, limits: &Limits) -> Result<Tree, PullError> {
    let root = Root::open(into).map_err(|error| local("open the layer's directory", &error))?;
    let allowance = Rc::new(Cell::new(HEADER_BYTES_MAX));
    let mut archive = Archive::new(Metered {
        inner: stream,
        allowance: allowance.clone(),
    });
    let mut unpacker = Unpacker {
        root,
        limits: *limits,
        bytes: 0,
        entries: 0,
        parent: None,
        directory_times: BTreeMap::new(),
        checksums: Checksums::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let entries = archive
        .entries()
        .map_err(|error| local("read the layer", &error))?;
    for entry in entries {
        let mut entry = entry.map_err(|error| local("read the layer", &error))?;
        allowance.set(u64::MAX);
        unpacker.entry(&mut entry)?;
        // What the entry's handler left unread is skipped under the same bound as its content.
        io::copy(&mut entry, &mut io::sink()).map_err(|error| local("read the layer", &error))?;
        allowance.set(HEADER_BYTES_MAX);
    }
    unpacker.set_directory_times()?;
    Tree::of(into, Some(&unpacker.checksums)).map_err(|error| local("list the layer", &error))
}

/// Ends the stream with an error when headers take more than their allowance.
struct Metered<R> {
    inner: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match self.allowance.get().checked_sub(count as u64) {
            Some(left) => self.allowance.set(left),
            None => return Err(invalid("an entry's headers exceed 1 MiB")),
        }
        Ok(count)
    }
}

struct Unpacker {
    root: Root,
    limits: Limits,
    bytes: u64,
    entries: u64,
    /// The directory of the last entry, still open: most neighbours share it.
    parent: Option<(Vec<u8>, Rc<Directory>)>,
    /// Set at the end, since every new child changes them.
    directory_times: BTreeMap<Vec<u8>, Modified>,
    checksums: Checksums,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<(), PullError> {
        self.entries += 1;
        if self.entries > self.limits.entries_max {
            let text = format!(
                "the layer has more than {} entries",
                self.limits.entries_max
            );
            return Err(PullError::Local(text));
        }
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&raw).into_owned();
        let refuse = |error: io::Error| local(&format!("unpack entry {shown:?}"), &error);
        let path = relative(&raw).map_err(refuse)?;
        self.place(entry, &path).map_err(refuse)
    }

    fn place<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &[u8]) -> io::Result<()> {
        let Some((parent_path, name)) = split(path) else {
            return self.root_entry(entry);
        };
        let parent = self.parent(parent_path)?;
        if name == OPAQUE_MARK {
            return parent.set_xattr(b".", b"trusted.overlay.opaque", b"y");
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            return whiteout(&parent, hidden);
        }
        let kind = entry.header().entry_type();
        let was_whiteout = self.make_room(&parent, name, kind)?;
        match kind {
            EntryType::Directory => {
                if parent.kind(name)?.is_none() {
                    parent.make_directory(name)?;
                }
                if was_whiteout {
                    parent.set_xattr(name, b"trusted.overlay.opaque", b"y")?;
                }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &parent, name)?;
            }
            EntryType::Symlink => parent.make_symlink(&link_name(entry)?, name)?,
            EntryType::Link => {
                self.hard_link(&parent, name, &link_name(entry)?)?;
                // Owner, mode and times are the target's.
                return Ok(());
            }
            EntryType::Char => {
                let (major, minor) = device(entry)?;
                parent.make_node(name, Node::Character { major, minor })?;
            }
            EntryType::Block => {
                let (major, minor) = device(entry)?;
                parent.make_node(name, Node::Block { major, minor })?;
            }
            EntryType::Fifo => parent.make_node(name, Node::Fifo)?,
            other => return Err(invalid(&format!("entry type {other:?} is not supported"))),
        }
        self.metadata(entry, &parent, name, path)
    }

    /// The layer's `./` or `/`: metadata of the root directory itself.
    fn root_entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        if entry.header().entry_type() != EntryType::Directory {
            return Err(invalid("the root of a layer must be a directory"));
        }
        let root = self.root.directory(b"")?;
        self.metadata(entry, &root, b".", b"")
    }

    /// Opens the directory that holds an entry, making what a sloppy layer left out.
    fn parent(&mut self, path: &[u8]) -> io::Result<Rc<Directory>> {
        if let Some((cached, directory)) = &self.parent
            && cached == path
        {
            return Ok(directory.clone());
        }
        let directory = match self.root.directory(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_parents(path)?,
            Err(error) => return Err(error),
        };
        let directory = Rc::new(directory);
        self.parent = Some((path.to_vec(), directory.clone()));
        Ok(directory)
    }

    fn make_parents(&self, path: &[u8]) -> io::Result<Directory> {
        let mut directory = self.root.directory(b"")?;
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/') {
            end += name.len();
            directory = match self.root.directory(&path[..end]) {
                Ok(found) => found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    directory.make_directory(name)?;
                    self.root.directory(&path[..end])?
                }
                Err(error) => return Err(error),
            };
            end += 1;
        }
        Ok(directory)
    }

    /// Removes what an entry replaces; true if that was a whiteout of this layer.
    fn make_room(&mut self, parent: &Directory, name: &[u8], kind: EntryType) -> io::Result<bool> {
        match (parent.kind(name)?, kind) {
            (None, _) | (Some(Kind::Directory), EntryType::Directory) => Ok(false),
            (Some(Kind::Directory), _) => {
                self.parent = None;
                parent.remove_tree(name)?;
                Ok(false)
            }
            (Some(Kind::Other), _) => {
                self.parent = None;
                let was_whiteout = parent.is_whiteout(name)?;
                parent.remove_file(name)?;
                Ok(was_whiteout)
            }
        }
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        parent: &Directory,
        name: &[u8],
    ) -> io::Result<()> {
        let mut file = parent.make_file(name)?;
        let mut checksum = flate2::Crc::new();
        let mut buffers: u64 = 0;
        loop {
            if buffers.is_multiple_of(BUFFERS_PER_SPACE_CHECK) {
                self.check_space()?;
            }
            buffers += 1;
            let count = match entry.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.bytes += count as u64;
            if self.bytes > self.limits.bytes_max {
                let text = format!(
                    "the layer unpacks to more than {} bytes",
                    self.limits.bytes_max
                );
                return Err(invalid(&text));
            }
            checksum.update(&self.buffer[..count]);
            file.write_all(&self.buffer[..count])?;
        }
        let inode = file.metadata()?.ino();
        self.checksums.insert(inode, checksum.sum());
        Ok(())
    }

    fn check_space(&self) -> io::Result<()> {
        match self.root.free_bytes()? >= self.limits.reserve_bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn hard_link(&mut self, parent: &Directory, name: &[u8], target: &[u8]) -> io::Result<()> {
        let target = relative(target)?;
        let Some((target_parent, target_name)) = split(&target) else {
            return Err(invalid("a hard link to the root is not possible"));
        };
        let directory = self.root.directory(target_parent)?;
        directory_is_linkable(&directory, target_name)?;
        parent.make_hard_link(&directory, target_name, name)
    }

    fn metadata<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        parent: &Directory,
        name: &[u8],
        path: &[u8],
    ) -> io::Result<()> {
        let kind = entry.header().entry_type();
        let header = entry.header();
        let fields = header.as_old();
        let owner = Owner {
            uid: number(field(header.uid(), &fields.uid)?)?,
            gid: number(field(header.gid(), &fields.gid)?)?,
        };
        let mode = field(header.mode().map(u64::from), &fields.mode)? as u32;
        let (modified, attributes) = extensions(entry)?;
        parent.set_owner(name, owner)?;
        if kind == EntryType::Symlink {
            return parent.set_modified(name, modified);
        }
        // After chown, which clears both setuid bits and capabilities.
        parent.set_mode(name, mode)?;
        if matches!(kind, EntryType::Char | EntryType::Block | EntryType::Fifo) {
            return parent.set_modified(name, modified);
        }
        for (attribute, value) in attributes {
            parent.set_xattr(name, &attribute, &value)?;
        }
        if kind == EntryType::Directory {
            self.directory_times.insert(path.to_vec(), modified);
            return Ok(());
        }
        parent.set_modified(name, modified)
    }

    fn set_directory_times(&self) -> Result<(), PullError> {
        for (path, modified) in &self.directory_times {
            let set = match self.root.directory(path) {
                Ok(directory) => directory.set_modified(b".", *modified),
                // Replaced by a later entry of the same layer.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    Ok(())
                }
                Err(error) => Err(error),
            };
            let shown = String::from_utf8_lossy(path);
            set.map_err(|error| local(&format!("set the time of {shown:?}"), &error))?;
        }
        Ok(())
    }
}

/// Hides what lower layers call `name`. What is there already came with this layer (its directory
/// began empty) and stays: only a directory has something below to hide.
fn whiteout(parent: &Directory, name: &[u8]) -> io::Result<()> {
    if name.is_empty() || name == b"." || name == b".." {
        return Err(invalid("a whiteout must name an entry of its directory"));
    }
    match parent.kind(name)? {
        Some(Kind::Directory) => parent.set_xattr(name, b"trusted.overlay.opaque", b"y"),
        Some(Kind::Other) => Ok(()),
        None => parent.make_node(name, Node::Character { major: 0, minor: 0 }),
    }
}

fn directory_is_linkable(directory: &Directory, name: &[u8]) -> io::Result<()> {
    match directory.kind(name)? {
        Some(Kind::Other) => Ok(()),
        Some(Kind::Directory) => Err(invalid("a hard link to a directory is not possible")),
        None => Err(invalid("the hard link's target is not in this layer")),
    }
}

/// A name relative to the layer's root, without `.` components and slashes at its ends: some builders
/// write names and targets from the root, and mean the layer's.
fn relative(raw: &[u8]) -> io::Result<Vec<u8>> {
    if raw.len() > PATH_BYTES_MAX {
        return Err(invalid("the name is longer than 4096 bytes"));
    }
    if raw.contains(&0) {
        return Err(invalid("names with a NUL byte are refused"));
    }
    let mut path = Vec::with_capacity(raw.len());
    for component in raw.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err(invalid("names with \"..\" are refused")),
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    Ok(path)
}

/// Parent (empty: the root) and last component; `None` for the root itself.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some((&path[..slash], &path[slash + 1..])),
        None => Some((b"", path)),
    }
}

fn link_name<R: Read>(entry: &Entry<'_, R>) -> io::Result<Vec<u8>> {
    let name = entry
        .link_name_bytes()
        .ok_or_else(|| invalid("the link has no target"))?;
    match name.is_empty() || name.contains(&0) || name.len() > PATH_BYTES_MAX {
        true => Err(invalid(
            "the link's target is empty, too long or holds a NUL byte",
        )),
        false => Ok(name.into_owned()),
    }
}

fn device<R: Read>(entry: &Entry<'_, R>) -> io::Result<(u32, u32)> {
    let header = entry.header();
    let missing = || invalid("the device has no number");
    Ok((
        header.device_major()?.ok_or_else(missing)?,
        header.device_minor()?.ok_or_else(missing)?,
    ))
}

/// Some builders leave numbers blank; GNU tar and Go read that as zero.
fn field(read: io::Result<u64>, raw: &[u8]) -> io::Result<u64> {
    match raw.iter().all(|byte| matches!(byte, 0 | b' ')) {
        true => Ok(0),
        false => read,
    }
}

fn number(id: u64) -> io::Result<u32> {
    // u32::MAX means "leave as it is" to chown(2).
    u32::try_from(id)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| invalid(&format!("owner {id} is out of range")))
}

type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Time and extended attributes, PAX records included. Only attributes that cannot change how
/// overlayfs or a security module treats the layer are taken: capabilities and `user.`.
fn extensions<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<(Modified, Attributes)> {
    let header = entry.header();
    let mtime = field(header.mtime(), &header.as_old().mtime)?;
    let mut modified = Modified {
        seconds: i64::try_from(mtime).unwrap_or(0),
        nanoseconds: 0,
    };
    let mut attributes = Vec::new();
    if let Some(records) = entry.pax_extensions()? {
        for record in records {
            // The reader takes a newline for the end of a record, which a binary value may hold: this
            // attribute is left out, as most are.
            let Ok(record) = record else { continue };
            let Ok(key) = record.key() else { continue };
            if key == "mtime" {
                modified = record.value().ok().and_then(pax_time).unwrap_or(modified);
            } else if let Some(name) = key.strip_prefix(XATTR_PREFIX)
                && (name == "security.capability" || name.starts_with("user."))
            {
                attributes.push((name.as_bytes().to_vec(), record.value_bytes().to_vec()));
            }
        }
    }
    Ok((modified, attributes))
}

/// `seconds[.fraction]`, also negative (POSIX pax, "mtime").
fn pax_time(text: &str) -> Option<Modified> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let mut digits: String = fraction.chars().take(9).collect();
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    while digits.len() < 9 {
        digits.push('0');
    }
    let nanoseconds = digits.parse().ok()?;
    Some(match whole.starts_with('-') && nanoseconds > 0 {
        true => Modified {
            seconds: seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
        false => Modified {
            seconds,
            nanoseconds,
        },
    })
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

/// An I/O error in words; what is full or read-only says so plainly.
pub(super) fn local(what: &str, error: &io::Error) -> PullError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            PullError::Disk(format!("{what}: no space left on the image file system"))
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            PullError::Disk(format!("{what}: the image file system is read-only"))
        }
        _ if is_input_output(error) => PullError::Disk(format!("{what}: {error}")),
        _ => PullError::Local(format!("{what}: {error}")),
    }
}

/// EIO, which has no kind of its own; also inside the errors that readers wrap it in.
fn is_input_output(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    error.raw_os_error() == Some(EIO) || inner.is_some_and(is_input_output)
}

/// errno.h
const EIO: i32 = 5;

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
