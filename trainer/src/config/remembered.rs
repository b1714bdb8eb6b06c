//! What a method remembers from step to step or from epoch to epoch, as keys of `[loss]`.

use serde::{Deserialize, Serialize};

/// `loss.class_weights`: each class weighs by the attack steps that it survived in the epoch before (Fair-ARD). With kappa the
/// sum of its samples' survived steps over the mean number of samples of a class, r = (1 / (kappa + 1e-5))^exponent, brought
/// to the mean 1 over the classes, and then cut to the range from `least` to `most`. In the first epoch every weight is 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassWeights {
    /// How strongly weights differ.
    #[serde(default = "two")]
    pub exponent: f64,
    /// The least weight.
    pub least: f64,
    /// The greatest weight.
    pub most: f64,
}

/// `loss.class_means`: of each class, the mean over an epoch of the student's predictions on its natural images. The next
/// epoch uses them; in the first one every probability is 1 / classes (DKL).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassMeans {
    /// The temperature of the predictions.
    pub temperature: f64,
    /// The power of each mean probability in the divergence.
    #[serde(default = "one")]
    pub exponent: f64,
    /// Whether the divergence is divided by the sum over the global batch of (sum over the classes of s)^2, instead of by the
    /// number of samples (GKL).
    #[serde(default)]
    pub normalized: bool,
}

/// `loss.rectify`: the label becomes m p + (1 - m) label, with p the network's prediction on the natural image at a
/// temperature, and m = weight - (the greatest of p - p of the label), cut to the range from 0 to 1 (ADR). Temperature and
/// weight go from their first to their second value by half a cosine over the steps of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rectify {
    /// `ema` or the name of a teacher.
    pub network: String,
    /// The first and the last temperature.
    pub temperature: [f64; 2],
    /// The first and the last weight of the prediction.
    pub weight: [f64; 2],
}

/// `loss.balance`: the weights of two terms follow how far each has come (MTARD). With a and n their values over those of the
/// run's first step, the second weight moves by `rate` of the way to n / (a + n); the first weight is 1 less it. Both begin at
/// 1/2 and multiply the weights of the terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// The names of the two terms.
    pub terms: [String; 2],
    /// How fast the weights move.
    pub rate: f64,
    /// By how much the temperatures of the two targets move in each step, towards equal entropies; 0 leaves them at 1
    /// (B-MTARD).
    #[serde(default)]
    pub temperature_rate: f64,
    /// Epochs, from 0, from which on both rates are a tenth of what they were.
    #[serde(default)]
    pub milestones: Vec<u64>,
}

fn one() -> f64 {
    1.0
}

fn two() -> f64 {
    2.0
}

impl Rectify {
    /// Temperature and weight after `step` of `steps` steps.
    pub fn at(&self, step: u64, steps: u64) -> [f64; 2] {
        let along = (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos()) / 2.0;
        [self.temperature, self.weight].map(|[first, last]| last + (first - last) * along)
    }
}

impl Balance {
    /// The rates of weights and of temperatures in `epoch`.
    pub fn rates(&self, epoch: u64) -> [f64; 2] {
        let passed = self.milestones.iter().filter(|milestone| **milestone <= epoch).count();
        [self.rate, self.temperature_rate].map(|rate| rate / 10f64.powi(passed as i32))
    }
}
