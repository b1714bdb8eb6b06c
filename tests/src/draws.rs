//! Random draws of a test. Its seed is printed, so that a failure can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::tell;

/// Random numbers; `IAD_FAULT_SEED` repeats them.
pub struct Draws {
    /// The seed.
    pub seed: u64,
    state: u64,
}

impl Draws {
    /// Draws of the test `name`, which tells their seed.
    pub fn told(name: &str) -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let seed = std::env::var("IAD_FAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(clock);
        tell(&format!("{name}: IAD_FAULT_SEED={seed}"));
        Self { seed, state: seed }
    }

    /// A number from 0 on, below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The generator of Knuth's MMIX; its high bits are the good ones.
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % limit
    }
}
