//! How the student's adversarial images are made.

use serde::{Deserialize, Serialize};

use super::Pixels;
use crate::attack::{Pgd, Start};
use crate::loss::Target;
use crate::model::Mode;

/// `[attack]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttackConfig {
    /// Which attack.
    pub kind: AttackKind,
    /// Radius of the L-infinity ball.
    pub eps: Pixels,
    /// Length of a step.
    pub step: Pixels,
    /// The number of steps.
    pub steps: usize,
    /// Where it begins.
    pub start: Start,
    /// Whether the start is clamped to the pixel range.
    pub clamp_start: bool,
    /// What batch norm does in the student's forward passes of the attack.
    pub batch_norm: AttackBatchNorm,
    /// What the attack raises.
    pub towards: Target,
}

impl Default for AttackConfig {
    /// The reference's training attack for distillation: PGD-10 on cross-entropy, 8/255 by 2/255, in training mode.
    fn default() -> Self {
        Self {
            kind: AttackKind::Pgd,
            eps: Pixels(8.0 / 255.0),
            step: Pixels(2.0 / 255.0),
            steps: 10,
            start: Start::Uniform,
            clamp_start: false,
            batch_norm: AttackBatchNorm::TrainUpdate,
            towards: Target::Label,
        }
    }
}

impl AttackConfig {
    /// The search it describes.
    pub fn pgd(&self) -> Pgd {
        let Self { steps, start, clamp_start, .. } = *self;
        Pgd { eps: self.eps.0, step: self.step.0, steps, start, clamp_start }
    }
}

/// The attacks there are for training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackKind {
    /// None: the loss speaks of natural images only.
    None,
    /// Projected gradient ascent.
    Pgd,
}

/// Batch norm during the attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackBatchNorm {
    /// Batch statistics, and every pass moves the running ones (the reference's distillation scripts).
    TrainUpdate,
    /// Batch statistics; the running ones stay.
    TrainFrozen,
    /// Running statistics (the reference's teachers).
    Eval,
}

impl AttackBatchNorm {
    /// The student's mode during the attack.
    pub fn mode(self) -> Mode {
        match self {
            AttackBatchNorm::TrainUpdate => Mode::Train,
            AttackBatchNorm::TrainFrozen => Mode::TrainFrozen,
            AttackBatchNorm::Eval => Mode::Eval,
        }
    }
}
