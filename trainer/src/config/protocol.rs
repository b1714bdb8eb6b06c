//! The protocol of an evaluation: all settings besides images, network and attacks that an accuracy depends on.

use serde::Serialize;

use super::{AutoAttack, Dtype, Evaluation, Norm, RunConfig};

/// The settings of an evaluation besides images, network and attacks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Protocol {
    /// The norm of the ball. It is written only for L2, so that older journals still fit.
    #[serde(skip_serializing_if = "Norm::is_default")]
    pub norm: Norm,
    /// Radius of the ball.
    pub eps: f64,
    /// Step size of attacks with several steps.
    pub step: f64,
    /// Rows of a batch.
    pub batch: usize,
    /// The seed of all random numbers.
    pub seed: u64,
    /// The number format of the forward passes. It is written only where it is not float32, so that older journals still fit; a
    /// network that was trained in float64 is then evaluated in float64.
    #[serde(skip_serializing_if = "Dtype::is_default")]
    pub precision: Dtype,
    /// The lengths of AutoAttack's searches.
    pub autoattack: AutoAttack,
}

impl Protocol {
    /// The protocol of a configuration.
    pub fn of(config: &RunConfig) -> Self {
        Self::stated(&config.evaluation, config.seed)
    }

    /// The protocol of an `[evaluation]` table.
    pub fn stated(evaluation: &Evaluation, seed: u64) -> Self {
        let Evaluation { norm, eps, step, batch, precision, autoattack, .. } = evaluation;
        let (eps, step) = (eps.0, step.0);
        Self { norm: *norm, eps, step, batch: *batch, seed, precision: *precision, autoattack: *autoattack }
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::stated(&Evaluation::default(), 0)
    }
}
