//! Kills a command with everything that came of it.
//!
//! The runtime makes every exec'd command leader of a session. What belongs to it is found by
//! session and by parent; a descendant that left both (a daemon) has left the command as well.

use std::collections::BTreeSet;

use crate::os::process::{self, PidFd, ProcessIdentity, Stat};

/// Rounds of looking and killing; a fork bomb that outruns all of them meets the pids limit.
const ROUNDS_MAX: usize = 8;

/// Sends SIGKILL to `root` and its descendants until none is left to find. `root` must not have
/// been reaped yet: its number is the anchor.
pub fn kill_tree(root: i32) {
    let mut sessions = BTreeSet::from([root]);
    for _ in 0..ROUNDS_MAX {
        let Ok(all) = process::living() else {
            return;
        };
        // A number is nobody's for good: only a session with a member in this look is that of the last one.
        let found = members(&all, &mut sessions, &mut BTreeSet::from([root]));
        sessions
            .retain(|&session| session == root || found.iter().any(|stat| stat.session == session));
        if found.is_empty() {
            return;
        }
        for stat in found {
            kill(stat);
        }
    }
}

/// Those of `all` that belong to the family, which grows by them.
fn members<'a>(
    all: &'a [Stat],
    sessions: &mut BTreeSet<i32>,
    family: &mut BTreeSet<i32>,
) -> Vec<&'a Stat> {
    let mut found: Vec<&Stat> = Vec::new();
    loop {
        let before = found.len();
        for stat in all {
            let new = !found.iter().any(|seen| seen.pid == stat.pid);
            let related = family.contains(&stat.pid)
                || family.contains(&stat.parent)
                || sessions.contains(&stat.session);
            if new && related {
                found.push(stat);
                family.insert(stat.pid);
                // Only a session led from within the family is the family's.
                if stat.session == stat.pid {
                    sessions.insert(stat.session);
                }
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Through a pidfd, so that a number reused since the look hits nobody.
fn kill(stat: &Stat) {
    let identity = ProcessIdentity {
        pid: stat.pid,
        start_ticks: stat.start_ticks,
    };
    if let Ok(fd) = identity.open() {
        let _already_gone = PidFd::signal(&fd, 9);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32, session: i32) -> Stat {
        Stat {
            pid,
            state: b'S',
            parent,
            group: session,
            session,
            start_ticks: 0,
        }
    }

    #[test]
    fn a_family_is_found_by_parent_and_by_session_and_nobody_else() {
        let all = [
            stat(1, 0, 1),
            stat(10, 5, 10),
            // Child, grandchild in a session of its own and its child there.
            stat(11, 10, 10),
            stat(12, 11, 12),
            stat(13, 12, 12),
            // Orphan that stayed in the session.
            stat(14, 1, 10),
            // Orphan of the grandchild's session.
            stat(15, 1, 12),
            // The container's own processes.
            stat(5, 1, 5),
            stat(6, 5, 5),
        ];
        let mut sessions = BTreeSet::from([10]);
        let mut family = BTreeSet::from([10]);
        let mut found: Vec<i32> = members(&all, &mut sessions, &mut family)
            .iter()
            .map(|stat| stat.pid)
            .collect();
        found.sort();
        assert_eq!(found, [10, 11, 12, 13, 14, 15]);
    }
}
