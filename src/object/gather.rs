//! Maps from iterators, in little program.

/// `collect()` sorts before it builds a map or a set, and that is 3 kB of program at each place that does it.
/// For some dozens of entries this is as good.
pub trait Gather: Iterator + Sized {
    /// A map, or a set, of all items. Of equal keys the last one counts.
    fn gathered<M: Default + Extend<Self::Item>>(self) -> M {
        let mut all = M::default();
        all.extend(self);
        all
    }
}

impl<I: Iterator> Gather for I {}
