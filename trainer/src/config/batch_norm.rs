//! `[batch_norm]`: the images in the batch statistics, and the modes of a pass.

use serde::{Deserialize, Serialize};

/// `[batch_norm]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormConfig {
    /// The images in the batch statistics.
    #[serde(default)]
    pub across_ranks: AcrossRanks,
    /// Whether passes are made that only update running statistics.
    #[serde(default)]
    pub compat: Compat,
    /// Whether a GPU computes statistics over the ranks by libtorch's fused kernels.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fused: bool,
}

/// Batch statistics across ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcrossRanks {
    /// Over the images of all ranks: same result as with one rank.
    #[default]
    Sync,
    /// The images of each rank: fewer sums, but other statistics.
    Local,
}

/// How terms of weight 0 are treated. The reference scripts compute them, and their passes update the student's running
/// statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// A term of weight 0 is not computed and needs no pass.
    #[default]
    Lean,
    /// For each term of weight 0, in the order of the terms, the student makes one pass without gradient over the
    /// images it is `of`.
    Reference,
}

/// The statistics that batch norm uses in a forward pass, and whether the pass updates the running ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Batch statistics; the pass updates the running ones (attacks of the reference's distillation scripts).
    #[serde(rename = "train_update")]
    Train,
    /// Batch statistics; the running ones do not change.
    TrainFrozen,
    /// Running statistics (attacks of the reference's teachers).
    Eval,
}
