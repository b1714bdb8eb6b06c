//! `[attack]`: how the student's adversarial images are made.

use serde::{Deserialize, Serialize};

use crate::config::{Norm, Pixels, Target};
use crate::model::Mode;

/// `[attack]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttackConfig {
    /// The kind of attack.
    pub kind: AttackKind,
    /// The norm of the ball. The resolved configuration writes it only for L2.
    #[serde(skip_serializing_if = "Norm::is_default")]
    pub norm: Norm,
    /// Radius of the ball.
    pub eps: Pixels,
    /// Length of a step.
    pub step: Pixels,
    /// The number of steps.
    pub steps: usize,
    /// The start.
    pub start: Start,
    /// Whether the start is clamped to the pixel range.
    pub clamp_start: bool,
    /// The mode of batch norm in the student's forward passes of the attack.
    pub batch_norm: Mode,
    /// The mode of batch norm in the student's pass on the natural images that the attack compares with; without it, that of
    /// the other passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub natural_batch_norm: Option<Mode>,
    /// The target whose divergence the attack raises.
    pub towards: Target,
    /// Whether the logit of the label in a teacher's natural prediction follows the candidate to first order (SAAD).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub first_order: bool,
}

impl Default for AttackConfig {
    /// The reference's training attack for distillation: PGD-10 on cross-entropy, 8/255 by 2/255, in training mode.
    fn default() -> Self {
        Self {
            kind: AttackKind::Pgd,
            norm: Norm::Linf,
            eps: Pixels(8.0 / 255.0),
            step: Pixels(2.0 / 255.0),
            steps: 10,
            start: Start::Uniform,
            clamp_start: false,
            batch_norm: Mode::Train,
            natural_batch_norm: None,
            towards: Target::Label,
            first_order: false,
        }
    }
}

/// The attacks of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackKind {
    /// None: the loss uses natural images only.
    None,
    /// Projected gradient ascent.
    Pgd,
    /// One step from a random point of the ball (Wong, Rice and Kolter 2020).
    FgsmRs,
    /// One step from a random point of twice the ball, without a projection (de Jorge et al. 2022).
    NFgsm,
}

/// The start of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the natural image.
    Natural,
    /// At a random point of the ball: uniform in L-infinity; in L2 of uniform direction and radius.
    Uniform,
    /// At the natural image plus normal noise of deviation 0.001 (TRADES).
    Gaussian,
    /// Half the radius away from the natural image in every value, up or down (L-infinity; NuAT).
    Signs,
}
