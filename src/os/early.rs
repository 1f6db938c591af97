//! Work that a process does instead of `main`, before the runtime of the language starts.
//!
//! The shim and pause are small for as long as they touch few pages: a `main` with the node's
//! frames and std's own start dirties some 40 kB. glibc hands argc and argv to the functions of
//! `.init_array` (System V ABI; glibc's csu/libc-start.c), so a role can be chosen there. Elsewhere
//! `main` calls the same function first.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;

/// The process's arguments as the kernel left them; nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    count: usize,
    vector: *const *const c_char,
}

impl Arguments {
    /// # Safety
    /// `vector` must point to `count` C strings that live as long as the process.
    #[doc(hidden)]
    pub unsafe fn from_raw(count: c_int, vector: *const *const c_char) -> Arguments {
        Arguments {
            count: usize::try_from(count).unwrap_or(0),
            vector,
        }
    }

    /// Argument `index`; 0 is the program's name.
    pub fn get(&self, index: usize) -> Option<&'static OsStr> {
        if index >= self.count {
            return None;
        }
        // SAFETY: `from_raw` was promised `count` strings that live as long as the process.
        let text = unsafe { CStr::from_ptr(*self.vector.add(index)) };
        Some(OsStr::from_bytes(text.to_bytes()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static OsStr> {
        let this = *self;
        (0..this.count).filter_map(move |index| this.get(index))
    }
}

/// The process's arguments when `main` runs already; a copy that lives as long as the process.
pub fn arguments_in_main() -> Arguments {
    let copies = std::env::args_os().filter_map(|text| CString::new(text.as_bytes()).ok());
    let pointers: Vec<*const c_char> = copies.map(|text| text.into_raw().cast_const()).collect();
    Arguments {
        count: pointers.len(),
        vector: Box::leak(pointers.into_boxed_slice()).as_ptr(),
    }
}

/// Calls `$role: fn(Arguments)` before `main`, with glibc. Use once, in the binary: in a library it
/// would run in every test, too.
#[macro_export]
macro_rules! before_main {
    ($role:path) => {
        #[cfg(target_env = "gnu")]
        const _: () = {
            extern "C" fn start(
                count: ::std::ffi::c_int,
                vector: *const *const ::std::ffi::c_char,
                _environment: *const *const ::std::ffi::c_char,
            ) {
                // SAFETY: glibc passes main's own argc and argv, which are never freed.
                $role(unsafe { $crate::os::early::Arguments::from_raw(count, vector) });
            }

            #[used]
            #[unsafe(link_section = ".init_array")]
            static START: extern "C" fn(
                ::std::ffi::c_int,
                *const *const ::std::ffi::c_char,
                *const *const ::std::ffi::c_char,
            ) = start;
        };
    };
}
