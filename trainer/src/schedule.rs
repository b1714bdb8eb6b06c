//! The learning rate as a function of progress.

use serde::{Deserialize, Serialize};

/// The rates of a run, step by step.
#[derive(Debug, Clone)]
pub struct Schedule {
    policy: Policy,
    /// The base rate for the batches of this run.
    rate: f64,
    /// The share of it that the warm-up begins with, and the steps that it takes.
    warm_up: (f64, u64),
    steps: u64,
}

impl Schedule {
    /// The rates of a run of so many `steps`, of which the first `warm_up` are a warm-up. The rate `lr` is meant for another
    /// batch, and is multiplied by `factor` for this run's.
    pub fn new(policy: Policy, lr: f64, factor: f64, warm_up: u64, steps: u64) -> Self {
        // Goyal et al. 2017, section 2.2: from the rate of the small batch. Where that is not lower, from a tenth.
        let first = if factor > 1.0 { 1.0 / factor } else { 0.1 };
        Self { policy, rate: lr * factor, warm_up: (first, warm_up), steps }
    }

    /// The rate of the `step`-th step of the run, which is one of `epoch`; both count from 0.
    pub fn rate(&self, epoch: u64, step: u64) -> f64 {
        let rate = self.rate * self.policy.factor(epoch, step as f64 / self.steps as f64);
        let (first, steps) = self.warm_up;
        if step >= steps { rate } else { rate * (first + (1.0 - first) * step as f64 / steps as f64) }
    }
}

/// How the learning rate follows the size of the global batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Not at all.
    #[default]
    None,
    /// As the batch: the linear scaling rule of Goyal et al. 2017.
    Linear,
    /// As the root of the batch, which keeps the variance of a step (Krizhevsky 2014).
    Sqrt,
}

impl Scale {
    /// The factor of the rate for a batch of so many times the one that the rate was meant for.
    pub fn factor(self, times: f64) -> f64 {
        match self {
            Scale::None => 1.0,
            Scale::Linear => times,
            Scale::Sqrt => times.sqrt(),
        }
    }
}

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
    use crate::config::OptimizerConfig;

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

    /// The rates of 200 epochs of 10 steps.
    fn schedule(text: &str, global_batch: usize) -> Schedule {
        let text = format!("lr = 0.1\nlr_policy = \"reference\"\n{text}");
        toml::from_str::<OptimizerConfig>(&text).unwrap().schedule(200, 10, global_batch)
    }

    #[test]
    fn without_a_scale_the_rate_is_that_of_the_policy_to_the_bit() {
        let schedule = schedule("", 1024);
        assert_eq!([schedule.rate(0, 0), schedule.rate(100, 1000)], [0.1, 0.1 * 0.1]);
    }

    #[test]
    fn the_rate_follows_the_batch() {
        for (scale, global_batch, rate) in [("linear", 1024, 0.8), ("sqrt", 512, 0.2), ("linear", 64, 0.05)] {
            let schedule = schedule(&format!("lr_scale = {scale:?}"), global_batch);
            assert!((schedule.rate(0, 0) - rate).abs() < 1e-15, "{scale}");
        }
        let schedule = schedule("lr_scale = \"linear\"\nlr_base_batch = 256", 1024);
        assert!((schedule.rate(0, 0) - 0.4).abs() < 1e-15);
    }

    #[test]
    fn the_warm_up_goes_from_the_unscaled_rate_to_the_scaled_one_step_by_step() {
        for (scale, first, last) in [("linear", 0.1, 0.8), ("none", 0.01, 0.1)] {
            let schedule = schedule(&format!("lr_scale = {scale:?}\nlr_warmup_epochs = 5"), 1024);
            for (step, share) in [(0, 0.0), (1, 0.02), (25, 0.5), (49, 0.98), (50, 1.0), (999, 1.0)] {
                let expected = first + (last - first) * share;
                let rate = schedule.rate(step / 10, step);
                assert!((rate - expected).abs() < 1e-15, "{scale}, step {step}: {rate}");
            }
            assert!((schedule.rate(100, 1000) - last / 10.0).abs() < 1e-15);
        }
    }
}
