//! Randomness from the kernel's generator (getrandom(2)).
#![allow(unsafe_code)]

use crate::world::Random;

/// The kernel's generator. Blocks only before the generator is seeded, early in the first boot.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // SAFETY: pointer and length describe one live, writable slice.
            let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
            match usize::try_from(got) {
                Ok(count) => rest = &mut rest[count..],
                Err(_) => {
                    let error = std::io::Error::last_os_error();
                    assert_eq!(
                        error.raw_os_error(),
                        Some(libc::EINTR),
                        "getrandom fails only when interrupted: {error}"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let (mut one, mut two) = ([0u8; 32], [0u8; 32]);
        SystemRandom.fill(&mut one);
        SystemRandom.fill(&mut two);
        assert_ne!(one, two);
    }
}
