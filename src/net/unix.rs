//! Unix stream sockets by path: made private, replaced safely, reached through any path length.
//!
//! A socket address holds 107 bytes of path; `--run-dir` may be longer. Both sides therefore open
//! the directory and name the socket through `/proc/self/fd/<directory>/<name>`.
//!
//! Never unlinks a socket that somebody still answers on.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Only the owner may connect; the peer's uid is checked besides.
const SOCKET_MODE: u32 = 0o600;

/// Why there is no socket to listen on.
#[derive(Debug)]
pub enum ListenError {
    /// Another process answers on it.
    InUse(PathBuf),
    /// Something that is no socket lies there; it is not ours to remove.
    NotASocket(PathBuf),
    Io(PathBuf, io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::InUse(path) => {
                write!(f, "listen on {}: another process does", path.display())
            }
            ListenError::NotASocket(path) => {
                write!(
                    f,
                    "listen on {}: it exists and is no socket",
                    path.display()
                )
            }
            ListenError::Io(path, error) => write!(f, "listen on {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ListenError {}

/// Listens on `directory/name` with mode 0600. A socket left behind by a dead process is replaced:
/// the new one is bound beside it and renamed over it, so that no moment is without either.
pub fn listen(directory: &Path, name: &str) -> Result<UnixListener, ListenError> {
    let path = directory.join(name);
    let io = |error| ListenError::Io(path.clone(), error);
    let opened = File::open(directory).map_err(io)?;
    let near = |name: &str| PathBuf::from(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()));

    match fs::symlink_metadata(near(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path));
        }
        // A full backlog (WouldBlock) answers too.
        Ok(_) => match UnixStream::connect(near(name)) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Err(ListenError::InUse(path)),
        },
    }

    let fresh = near(&format!(".{name}.{}", std::process::id()));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh).map_err(io)?;
    fs::set_permissions(&fresh, Permissions::from_mode(SOCKET_MODE))
        .and_then(|()| fs::rename(&fresh, near(name)))
        .map_err(io)?;
    Ok(listener)
}

/// Connects to the socket at `path`, however long the path is.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let directory = File::open(path.parent().unwrap_or(Path::new(".")))?;
    let name = path.file_name().unwrap_or_default();
    let near = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    UnixStream::connect(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_private_and_reachable_through_a_long_path() {
        let root = tempfile::tempdir().expect("temporary directory");
        let directory = root.path().join("d".repeat(120));
        fs::create_dir(&directory).expect("make directory");
        let _listener = listen(&directory, "api.sock").expect("listen");
        let mode = fs::metadata(directory.join("api.sock"))
            .expect("socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        connect(&directory.join("api.sock")).expect("connect");
        let names: Vec<_> = fs::read_dir(&directory).expect("list").collect();
        assert_eq!(names.len(), 1, "nothing but the socket is left");
    }

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let first = listen(directory.path(), "api.sock").expect("listen");
        let second = listen(directory.path(), "api.sock");
        assert!(matches!(second, Err(ListenError::InUse(_))), "{second:?}");
        drop(first);
        listen(directory.path(), "api.sock").expect("listen again");
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::write(directory.path().join("api.sock"), "mine").expect("write");
        let result = listen(directory.path(), "api.sock");
        assert!(
            matches!(result, Err(ListenError::NotASocket(_))),
            "{result:?}"
        );
    }
}
