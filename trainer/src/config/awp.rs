//! `[awp]`: adversarial weight perturbation.

use serde::{Deserialize, Serialize};

/// `[awp]`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Awp {
    /// The length of a weight tensor's perturbation, as a share of the tensor's own.
    pub gamma: f64,
    /// The first epoch, from 0, whose steps perturb.
    #[serde(default)]
    pub from_epoch: u64,
}
