//! `[guard]`: what a run watches of itself.

use datasets::UserError;
use serde::{Deserialize, Serialize};

use super::range::must;

/// `[guard]`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Steps between two comparisons of the ranks' states; 0 for none.
    pub compare_every: u64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { compare_every: 100 }
    }
}

impl Guard {
    /// The part that decides the result of a run. Comparing changes nothing.
    pub(super) fn lasting(&self) -> Self {
        Self::default()
    }

    /// Whether nothing is set, so that nothing is written down.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<(), UserError> {
        let every = self.compare_every;
        must(every <= 1_000_000_000, "guard.compare_every", every, "0 (never) to 1,000,000,000 steps")
    }
}
