//! The random numbers of one sample, one after another.

use crate::ground::random::{bits, uniform};

/// The next random numbers of a sample. Two streams of one key and first element are the same.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    key: u64,
    element: u32,
}

impl Stream {
    /// The numbers of `key` from `element` on.
    pub(super) fn new(key: u64, element: u32) -> Self {
        Self { key, element }
    }

    fn next(&mut self) -> u32 {
        self.element += 1;
        self.element - 1
    }

    /// A number in [0, 1).
    pub(super) fn uniform(&mut self) -> f64 {
        let element = self.next();
        uniform(self.key, element)
    }

    /// A number in [low, high).
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// An integer in `0..bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let element = self.next();
        ((u64::from(bits(self.key, element)) * bound as u64) >> 32) as usize
    }

    /// True or false, each half of the time.
    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}
