//! What a process may do, given up for good; and the identity of its namespaces.
#![allow(unsafe_code)]

use std::io;
use std::path::Path;

use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

/// Namespaces that a process can leave for new ones of its own (unshare(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    Network,
    Ipc,
    Uts,
    Mount,
}

/// Leaves one namespace for a new one; only for a process with one thread.
pub fn unshare(namespace: Namespace) -> io::Result<()> {
    let flags = match namespace {
        Namespace::Network => UnshareFlags::NEWNET,
        Namespace::Ipc => UnshareFlags::NEWIPC,
        Namespace::Uts => UnshareFlags::NEWUTS,
        Namespace::Mount => UnshareFlags::NEWNS,
    };
    // SAFETY: none of these flags unshares the descriptor table, which is what makes the call
    // unsafe in rustix.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Gives up everything: supplementary groups, bounding and all other capability sets, root.
/// Leaves a process that may not be traced or looked into (not dumpable, no_new_privs).
pub fn drop_all(uid: u32, gid: u32) -> io::Result<()> {
    // CAP_LAST_CAP is 40 today; the kernel answers EINVAL above its own last one.
    for number in 0..64 {
        // SAFETY: prctl(PR_CAPBSET_DROP) takes one integer.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINVAL) => break,
                _ => return Err(error),
            }
        }
    }
    rustix::thread::set_thread_groups(&[])?;
    let gid = rustix::process::Gid::from_raw(gid);
    let uid = rustix::process::Uid::from_raw(uid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)?;
    not_dumpable()
}

/// No core dump, and /proc/PID belongs to root (PR_SET_DUMPABLE, prctl(2)).
pub fn not_dumpable() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        DumpableBehavior::NotDumpable,
    )?)
}

/// Closes every descriptor, the standard ones too.
pub fn close_all_descriptors() {
    // SAFETY: close_range takes integers. The caller uses no descriptor afterwards: the process
    // that calls this (pause) only waits for signals.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0, libc::c_long::from(i32::MAX), 0);
    }
}

pub fn set_hostname(name: &str) -> io::Result<()> {
    Ok(rustix::system::sethostname(name.as_bytes())?)
}

/// Makes `root` (a mount point) the root of this mount namespace and lets go of the old one.
pub fn pivot_into(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    // pivot_root(".", "."): the old root lands on top of the new one and is detached from there
    // (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}
