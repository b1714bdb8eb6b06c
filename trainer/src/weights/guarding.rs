//! What the guards of a run remember from step to step, in the header of a checkpoint.

use serde::{Deserialize, Serialize};

/// What the guards of a run remember.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Guarding {
    /// The bits of the norms of the newest gradients, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub norms: Vec<u64>,
    /// Steps that moved nothing.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped: u64,
    /// How often the run went back.
    #[serde(skip_serializing_if = "is_zero")]
    pub rollbacks: u64,
}

/// A step that is kept to be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Offence {
    /// The step, from 1.
    pub step: u64,
    /// What was found, in words.
    pub found: String,
    /// Whether its values were not finite; otherwise its gradient was an outlier.
    pub not_finite: bool,
    /// Whether the state is that before the step. Otherwise it is that of a step or two later.
    pub exact: bool,
    /// The norm of its gradient, where it was measured and finite.
    pub norm: Option<f64>,
    /// The largest norm that was none.
    pub limit: Option<f64>,
    /// The number of ranks that took it.
    pub ranks: usize,
    /// Its learning rate.
    pub rate: f64,
}

impl Guarding {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
