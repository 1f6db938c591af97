//! One seed, many streams: every draw of a run comes from here, so a seed is a reproduction.
//!
//! Each part of the simulation forks its own stream by name, so that one more draw in one part
//! does not shift all the others. Never touches the kernel's generator.

use std::cell::Cell;

use lowtide::world::Random;

/// SplitMix64: small, fast and good enough to choose faults with.
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
pub struct Stream(Cell<u64>);

impl Stream {
    pub fn new(seed: u64) -> Stream {
        let stream = Stream(Cell::new(seed));
        stream.next();
        stream
    }

    /// A stream of its own for one part of the run.
    pub fn fork(&self, name: &str) -> Stream {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Stream::new(self.0.get() ^ hash)
    }

    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `low..=high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        assert!(low <= high);
        low + self.next() % (high - low + 1)
    }

    /// True in `per_mille` of a thousand cases.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }

    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.between(0, choices.len() as u64 - 1) as usize]
    }
}

impl Random for Stream {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
