//! glibc's allocator, told to stay small. Does nothing with another C library.
#![allow(unsafe_code)]

/// One arena for all threads: each further one reserves 64 MiB of address space and keeps what it
/// freed to itself. Call before the first thread is started.
pub fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes two integers and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free pages back to the kernel; worth it after a burst (a list of all pods, an image).
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes an integer and locks what it touches itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
