//! The events of a run: one line each in metrics.jsonl. The leader writes these types, and the report reads them.
//!
//! A field that an older version did not write reads as its default. A number that is not finite is written as `null` and
//! reads as NaN. Clocks and rates, which differ from run to run, are only inside `timing`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::evaluate::Accuracy;

/// One line of metrics.jsonl.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins.
    Started(RunStarted),
    /// The loss of one step.
    Step(StepDone),
    /// An epoch is done.
    Epoch(EpochDone),
    /// Images were evaluated during training.
    Evaluated(Evaluated),
    /// Something the reader of the numbers should know.
    Warned {
        /// What was seen and why it matters.
        message: String,
    },
    /// A key changed when the run was resumed.
    Changed {
        /// The dotted key.
        key: String,
        /// Its value before, in TOML, or `nothing`.
        before: String,
        /// Its value from here on.
        now: String,
    },
    /// A guard found something.
    Guarded(Guarded),
    /// Training is done.
    Finished(RunFinished),
    /// An event of a newer version of the program. It is read and never written.
    #[serde(other)]
    Unknown,
}

/// What the run sets out to do. A size of 0 is not known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunStarted {
    /// A name for the run other than that of its folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Batches of an epoch.
    pub steps_per_epoch: u64,
    /// Epochs to train.
    pub epochs: u64,
    /// Trainable values of the student.
    pub parameters: u64,
    /// Images trained on.
    pub train_images: u64,
    /// Images held out for selection.
    pub held_out_images: u64,
    /// Images of the test set.
    pub test_images: u64,
    /// Of each class, in the order of the classes, the images trained on.
    pub train_images_per_class: Vec<usize>,
    /// The number of classes.
    pub classes: usize,
    /// The images of `data.extra`, if the run has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra: Option<ExtraImages>,
}

/// Images of another container that stand in every batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtraImages {
    /// How many there are to draw from.
    pub images: u64,
    /// How many a step has, but for the last of an epoch, which may have more.
    pub per_step: u64,
    /// How many there are of each class, in the order of the classes.
    pub images_per_class: Vec<usize>,
}

/// One optimisation step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepDone {
    /// The epoch, from 0.
    #[serde(default)]
    pub epoch: u64,
    /// Steps done, this one included.
    pub step: u64,
    /// The rate of this step.
    #[serde(default = "not_a_number", deserialize_with = "number")]
    pub learning_rate: f64,
    /// The loss over the global batch.
    #[serde(default = "not_a_number", deserialize_with = "number")]
    pub loss: f64,
    /// Its terms.
    #[serde(default, deserialize_with = "numbers")]
    pub terms: BTreeMap<String, f64>,
    /// Clocks.
    #[serde(default)]
    pub timing: Timing,
}

/// Means and counts over one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochDone {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Steps done.
    #[serde(default)]
    pub step: u64,
    /// The last rate.
    #[serde(default = "not_a_number", deserialize_with = "number")]
    pub learning_rate: f64,
    /// The mean loss over the epoch's samples.
    #[serde(default = "not_a_number", deserialize_with = "number")]
    pub loss: f64,
    /// Its terms.
    #[serde(default, deserialize_with = "numbers")]
    pub terms: BTreeMap<String, f64>,
    /// Correct predictions by who predicts on which images, and the cases of the teacher.
    #[serde(default)]
    pub counts: BTreeMap<String, Count>,
    /// The trust in the teacher (alpha), where a loss has one; as it would be, before it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// Counts of samples by the teacher's probability of the label on adversarial images, in equal bins of [0, 1], for each
    /// case; alpha for any exponent follows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub probability: BTreeMap<String, Vec<u64>>,
    /// Clocks.
    #[serde(default)]
    pub timing: Timing,
}

/// An evaluation during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// The epoch just done, from 0.
    pub epoch: u64,
    /// Steps done.
    #[serde(default)]
    pub step: u64,
    /// `held_out` or `test`.
    pub split: String,
    /// Whether these are the best weights so far.
    #[serde(default)]
    pub best: bool,
    /// The results.
    pub attacks: Vec<Accuracy>,
    /// Clocks.
    #[serde(default)]
    pub timing: Timing,
}

/// What a guard of the run found, and what followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guarded {
    /// `gradient`, an outlier; `accuracy`, which fell to chance; or `overfitting`, where it fell below half its best while that under
    /// the attack of training did not.
    pub kind: String,
    /// The step that it was found at.
    pub step: u64,
    /// The norm of the gradient, or the accuracy.
    #[serde(default = "not_a_number", deserialize_with = "number")]
    pub value: f64,
    /// The largest norm that is no outlier, the largest accuracy that is chance, or half the best accuracy.
    #[serde(default = "not_a_number", deserialize_with = "number")]
    pub limit: f64,
    /// `warn`, `skip` or `rollback`.
    pub action: String,
    /// For `rollback`, the step of the checkpoint that the run goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// For `rollback`, the factor of the learning rate from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_factor: Option<f64>,
}

impl std::fmt::Display for Guarded {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, step, value, limit, action, to, rate_factor } = self;
        match kind.as_str() {
            "gradient" => {
                write!(out, "step {step}: the norm of the gradient, {value:.4}, is an outlier (above {limit:.4})")?
            }
            "accuracy" => {
                let (value, limit) = (100.0 * value, 100.0 * limit);
                write!(
                    out,
                    "step {step}: the robust accuracy has fallen to chance, {value:.2} % (up to {limit:.2} %)"
                )?;
            }
            "overfitting" => {
                let (value, limit) = (100.0 * value, 100.0 * limit);
                write!(
                    out,
                    "step {step}: catastrophic overfitting: the robust accuracy has fallen to {value:.2} %, below half its best \
                     ({limit:.2} %), while the images of training withstand their attack of a single step"
                )?;
            }
            other => write!(out, "step {step}: {other} {value:.4}, limit {limit:.4}")?,
        }
        match (action.as_str(), to) {
            ("skip", _) => out.write_str("; the step moved nothing"),
            ("rollback", Some(to)) => {
                write!(
                    out,
                    "; the run goes back to step {to}, with {} times the learning rate",
                    rate_factor.unwrap_or(1.0)
                )
            }
            _ => out.write_str("; the run goes on"),
        }
    }
}

/// The end of training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFinished {
    /// Steps done.
    pub step: u64,
    /// Clocks.
    pub timing: Timing,
}

/// A part of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many.
    #[serde(alias = "correct")]
    pub count: u64,
    /// Of how many.
    pub of: u64,
}

/// How far the teacher is trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// The mean.
    #[serde(default = "not_a_number", deserialize_with = "number")]
    pub mean: f64,
    /// Over how many.
    pub of: u64,
    /// The quantiles of [`PERCENTS`] over `all` samples and those of each case, exact to one of `ALPHA_BINS`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub quantiles: BTreeMap<String, Vec<f64>>,
}

/// The percentages of the quantiles of alpha.
pub const PERCENTS: [u32; 7] = [1, 5, 25, 50, 75, 95, 99];

/// Clocks and rates, which differ from run to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Seconds since the beginning of the run; of that epoch in `epoch`, of that evaluation in `evaluated`.
    #[serde(default = "not_a_number", deserialize_with = "number")]
    pub seconds: f64,
    /// Training images a second over all ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Seconds in which steps waited for their images, of the rank that waited longest in each: since the last record in
    /// `step`, in this session in `epoch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited_for_data: Option<f64>,
    /// Seconds by [`Phase`](crate::system::Phase), which add up to the time that passed: the leader's since the last record
    /// in `step`, the mean over the ranks in this session in `epoch`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phases: BTreeMap<String, f64>,
    /// Floating-point operations a second over all ranks: convolutions and linear layers, as counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<f64>,
    /// Their share of what the ranks' devices can do at most. A measured peak is raised by a faster step, which has 1; only of a
    /// peak named by `metrics.peak_tflops` is a larger share possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilisation: Option<f64>,
    /// The most bytes that tensors held on the GPU of any rank, or that any rank's process held on a CPU, so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

impl Timing {
    /// The time alone.
    pub fn of(seconds: f64) -> Self {
        Self { seconds, ..Self::default() }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            seconds: f64::NAN,
            images_per_second: None,
            waited_for_data: None,
            phases: BTreeMap::new(),
            flops: None,
            utilisation: None,
            peak_memory: None,
        }
    }
}

fn not_a_number() -> f64 {
    f64::NAN
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let read = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(read.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

#[cfg(test)]
mod tests;
