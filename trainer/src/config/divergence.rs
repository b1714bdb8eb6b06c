//! The divergences of terms and attacks.

use serde::{Deserialize, Serialize};

/// How far a prediction q is from its target's p.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Divergence {
    /// KL(p || q).
    #[default]
    Kl,
    /// The mean over the classes of (p - q)^2 (DGAD).
    MeanSquare,
    /// The sum over the classes of (p - q)^2 (SCORE).
    Square,
    /// Half of KL(p || m) + KL(q || m), with m = (p + q) / 2: the same both ways (Jensen-Shannon).
    JensenShannon,
    /// The mean over the classes of the squared differences of the logits (LBGAT).
    LogitSquare,
    /// 1/4 of the sum over pairs of classes of s_a s_b (d_a - d_b)^2, where d are the differences of the logits and s is the
    /// mean prediction of the label's class (`loss.class_means`; DKL).
    LogitGaps,
    /// The nuclear norm of the differences of the logits, a matrix with a row for each sample of the global batch (NuAT).
    Nuclear,
}

impl Divergence {
    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Divergence::Kl => "kl",
            Divergence::MeanSquare => "mean_square",
            Divergence::Square => "square",
            Divergence::JensenShannon => "jensen_shannon",
            Divergence::LogitSquare => "logit_square",
            Divergence::LogitGaps => "logit_gaps",
            Divergence::Nuclear => "nuclear",
        }
    }

    /// Whether it compares probabilities by their squared differences, with a label's too.
    pub fn is_of_squares(self) -> bool {
        matches!(self, Divergence::MeanSquare | Divergence::Square)
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
