//! The learning rate as a function of progress.

use serde::{Deserialize, Serialize};

/// How the learning rate changes over a run. In TOML: `"constant"`, `"reference"`, `"paper"`, or a table such as
/// `{ step = { at = [100, 150], factor = 0.1 } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Policy {
    /// Never changes.
    Constant,
    /// A tenth from epoch 100 on, as the reference code does it: its second drop at 150 never takes effect.
    Reference,
    /// A tenth from epoch 100 and a hundredth from epoch 150 on, as the paper states it.
    Paper,
    /// Multiplied by `factor` from each epoch of `at` on.
    Step {
        /// The epochs, counted from 0, ascending.
        at: Vec<u64>,
        /// The multiplier of each drop.
        factor: f64,
    },
    /// Linear from `start * lr` up to `lr` at the fraction `peak` of the run, then linear down to `end * lr`.
    OneCycle {
        /// The first factor.
        start: f64,
        /// Where the peak lies, as a fraction of the run.
        peak: f64,
        /// The last factor.
        end: f64,
    },
}

impl Policy {
    /// The factor of the base rate in `epoch`, or, for policies that change within an epoch, at `fraction` (0 to 1) of the
    /// whole run.
    pub fn factor(&self, epoch: u64, fraction: f64) -> f64 {
        let drops = |at: &[u64]| at.iter().filter(|&&drop| epoch >= drop).count() as i32;
        match self {
            Policy::Constant => 1.0,
            Policy::Reference => 0.1f64.powi(drops(&[100])),
            Policy::Paper => 0.1f64.powi(drops(&[100, 150])),
            Policy::Step { at, factor } => factor.powi(drops(at)),
            Policy::OneCycle { start, peak, .. } if fraction < *peak => start + (1.0 - start) * fraction / peak,
            Policy::OneCycle { peak, end, .. } => 1.0 + (end - 1.0) * (fraction - peak) / (1.0 - peak),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_take_effect_at_their_epoch() {
        for (policy, expected) in [
            (Policy::Reference, [1.0, 0.1, 0.1]),
            (Policy::Paper, [1.0, 0.1, 0.01]),
            (Policy::Step { at: vec![100, 150], factor: 0.5 }, [1.0, 0.5, 0.25]),
            (Policy::Constant, [1.0; 3]),
        ] {
            for (epoch, factor) in [99, 100, 199].into_iter().zip(expected) {
                assert!((policy.factor(epoch, 0.0) - factor).abs() < 1e-15, "{policy:?} at {epoch}");
            }
        }
    }

    #[test]
    fn one_cycle_is_linear_between_its_corners() {
        let policy = Policy::OneCycle { start: 0.1, peak: 0.25, end: 0.005 };
        for (fraction, factor) in [(0.0, 0.1), (0.125, 0.55), (0.25, 1.0), (0.625, 0.5025), (1.0, 0.005)] {
            assert!((policy.factor(0, fraction) - factor).abs() < 1e-12, "at {fraction}");
        }
    }
}
