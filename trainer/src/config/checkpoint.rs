//! `[checkpoint]`: which states of a run are saved and kept.

use serde::{Deserialize, Serialize};

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Epochs between checkpoints.
    pub every: u64,
    /// Minutes between checkpoints within an epoch; 0 for none.
    pub minutes: f64,
    /// The number of newest checkpoints that are kept.
    pub keep_last: usize,
    /// Epochs between checkpoints that are kept for good; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub keep_every: u64,
    /// The number of checkpoints with the best selection accuracies that are kept; 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub keep_best: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 1, minutes: 30.0, keep_last: 2, keep_every: 0, keep_best: 0 }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
