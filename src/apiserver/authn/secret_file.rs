//! What token and password files have in common.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::csv::{self, Row};
use crate::object::User;
use crate::object::user::GROUP_AUTHENTICATED;

/// Far more than anybody writes by hand.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file's content, and what its author should know.
pub struct Loaded<T> {
    pub content: T,
    /// File, line, text.
    pub warnings: Vec<String>,
}

/// One row.
pub struct Entry {
    pub secret: String,
    pub user: User,
}

/// The text of a file that others may not read. Errors: file and what is wrong.
pub fn read(path: &Path) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let about = file.metadata().map_err(|error| failed(&error))?;
    if !about.is_file() {
        return Err(failed(&"not a regular file"));
    }
    check_mode(&about.permissions()).map_err(|why| failed(&why))?;
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

fn check_mode(permissions: &Permissions) -> Result<(), String> {
    let mode = permissions.mode() & 0o777;
    match mode & 0o007 {
        0 => Ok(()),
        _ => Err(format!(
            "mode is {mode:04o}: everybody on this machine may read or change these secrets; \
             chmod 0600 it"
        )),
    }
}

/// `SECRET,user,uid[,"group,group"]`. `what` names the first column. Columns behind the fourth are
/// ignored, as upstream has it.
pub fn entry(path: &Path, row: &Row, what: &str) -> Result<Entry, String> {
    let [secret, name, uid, more @ ..] = row.cells.as_slice() else {
        let found = row.cells.len();
        let text = format!("{found} columns, needs at least 3 ({what},user,uid)");
        return Err(csv::at(path, row.line, &text));
    };
    if name.is_empty() {
        return Err(csv::at(path, row.line, "empty user name"));
    }
    let groups = more.first().map_or("", String::as_str);
    let groups = groups.split(',').filter(|group| !group.is_empty());
    Ok(Entry {
        secret: secret.clone(),
        user: User {
            name: name.clone(),
            uid: uid.clone(),
            groups: groups.map(str::to_owned).collect(),
            ..User::default()
        },
    })
}

/// Adds the group that everybody is in who has proved to be somebody.
pub fn authenticated(user: &User) -> User {
    let mut user = user.clone();
    if !user.is_in(GROUP_AUTHENTICATED) {
        user.groups.push(GROUP_AUTHENTICATED.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_everybody_may_read_are_refused() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("t.csv");
        std::fs::write(&path, "t,a,1\n").expect("write");
        for (mode, good) in [(0o600, true), (0o640, true), (0o644, false), (0o602, false)] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
            let result = read(&path);
            assert_eq!(result.is_ok(), good, "{mode:o}: {result:?}");
        }
        let missing = read(&directory.path().join("no.csv")).expect_err("missing");
        assert!(missing.contains("no.csv: "), "{missing}");
        assert!(read(directory.path()).is_err(), "a directory");
    }
}
