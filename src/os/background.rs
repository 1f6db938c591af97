//! Long disk work on a thread of its own, at the lowest priority that still makes progress.
//!
//! Unpacking and hashing an image must not take the processor or the card away from containers
//! that already run. A thread is dedicated to one job because priorities cannot be raised again
//! without a capability: pool threads would stay slow. The caller bounds how many jobs run.

#![allow(unsafe_code)]

use std::future::Future;
use std::io;

use super::thread::STACK_BYTES;

/// Niceness while working: a tenth of the weight of a container's process (sched(7)).
const NICENESS: i32 = 10;

/// Best-effort class, lowest level, as `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, 7)` (ioprio_set(2)).
/// Not the idle class: it starves for ever beside a busy container.
const IO_PRIORITY: libc::c_int = (2 << 13) | 7;

/// `IOPRIO_WHO_PROCESS`: a thread id, or 0 for the calling thread (ioprio_set(2)).
const IO_PRIORITY_OF_THREAD: libc::c_int = 1;

/// Runs `job` on a new low-priority thread and resolves with its result.
///
/// The thread runs to its end even if the future is dropped. Errors: no thread could be made.
pub fn run<T: Send + 'static>(
    name: &str,
    job: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = io::Result<T>> + 'static {
    let (sender, receiver) = async_channel::bounded(1);
    let spawned = std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            lower_priority();
            // Nobody waits any more: the job's effects are on disk, its result is not needed.
            let _ = sender.try_send(job());
        });
    async move {
        spawned?;
        receiver
            .recv()
            .await
            .map_err(|_| io::Error::other("the worker thread ended without a result"))
    }
}

/// Lowers CPU and I/O priority of the calling thread. A refusal costs politeness, nothing else.
fn lower_priority() {
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        log::debug!("lower the priority of a worker thread: {error}");
    }
    // SAFETY: ioprio_set takes three integers and touches no memory of ours.
    let set = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IO_PRIORITY_OF_THREAD,
            0 as libc::c_int,
            IO_PRIORITY,
        )
    };
    if set != 0 {
        log::debug!(
            "lower the I/O priority of a worker thread: {}",
            io::Error::last_os_error()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_runs_at_low_priority_and_hands_its_result_back() {
        let niceness = futures_lite::future::block_on(run("test-job", || {
            rustix::process::getpriority_process(None)
        }));
        assert_eq!(niceness.unwrap().unwrap(), NICENESS);
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), 0);
    }
}
