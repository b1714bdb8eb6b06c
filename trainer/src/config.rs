//! A run's configuration: one complete TOML file, read, overridden and checked before anything starts.

mod attack;
mod averages;
mod batch;
mod check;
mod comm;
mod data;
mod evaluation;
mod overrides;
mod pixels;
mod precision;
mod preset;
mod read;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::attack::{AttackBatchNorm, AttackConfig, AttackKind};
pub use self::averages::{Averages, Ema, Swa};
pub use self::batch::{BatchSize, Per};
pub use self::comm::{Backend, Comm, GradientDtype};
pub use self::data::{Data, Reading};
pub use self::evaluation::{AutoAttack, Evaluation, Selection};
pub use self::overrides::Override;
pub use self::pixels::Pixels;
pub use self::precision::{Dtype, Precision};
pub use self::preset::names as preset_names;
use crate::loss::Term;
use crate::model::Architecture;
use crate::schedule::{Policy, Scale, Schedule};

/// Everything that decides a run's numbers, except the number of ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The seed of every random number.
    #[serde(default = "one")]
    pub seed: u64,
    /// Passes over the training set.
    pub epochs: u64,
    /// The size of a step.
    pub batch: BatchSize,
    /// The images.
    pub data: Data,
    /// The network to train.
    pub student: Student,
    /// Frozen networks that losses may speak of, by name.
    #[serde(default)]
    pub teachers: BTreeMap<String, Teacher>,
    /// How the student's adversarial images are made.
    #[serde(default)]
    pub attack: AttackConfig,
    /// What batch norm measures.
    #[serde(default)]
    pub batch_norm: BatchNormConfig,
    /// The objective.
    pub loss: LossConfig,
    /// How parameters move.
    pub optimizer: OptimizerConfig,
    /// Averages of the weights.
    #[serde(default)]
    pub averages: Averages,
    /// Number formats.
    #[serde(default)]
    pub precision: Precision,
    /// How gradients travel.
    #[serde(default)]
    pub comm: Comm,
    /// What is measured on images that are not trained on.
    #[serde(default)]
    pub evaluation: Evaluation,
    /// What is kept to resume from.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// What is written down while training.
    #[serde(default)]
    pub metrics: MetricsConfig,
}

fn one() -> u64 {
    1
}

/// `[student]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Student {
    /// The kind of network.
    pub architecture: Architecture,
    /// The number of classes; that of the data set without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
}

/// `[teachers.NAME]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teacher {
    /// A finished run folder (its best weights, else its final ones) or a file of weights.
    pub checkpoint: PathBuf,
    /// The configuration that makes it, for `--with-teachers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
}

/// `[batch_norm]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormConfig {
    /// Whose images the batch statistics are taken over.
    #[serde(default)]
    pub across_ranks: AcrossRanks,
    /// Whether forward passes that move nothing but running statistics are made.
    #[serde(default)]
    pub compat: Compat,
}

/// Batch norm and ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AcrossRanks {
    /// Over the images of all ranks: the result of one rank.
    #[default]
    Sync,
    /// Over the images of each rank: fewer sums, other statistics.
    Local,
}

/// Terms of weight 0: the reference scripts compute them, and their passes move the student's running statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// A term of weight 0 is not computed, nor its forward passes.
    #[default]
    Lean,
    /// For each term of weight 0 the student passes over the images it is `of`, without gradient and by itself, in the order
    /// of the terms.
    Reference,
}

/// `[loss]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossConfig {
    /// The summands. A preset (`preset = "iad-1"`) is replaced by its terms when the file is read.
    pub terms: Vec<Term>,
}

/// `[optimizer]`: SGD with momentum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The base learning rate.
    pub lr: f64,
    /// How it changes.
    pub lr_policy: Policy,
    /// How it follows the size of the global batch.
    #[serde(default)]
    pub lr_scale: Scale,
    /// The global batch that `lr` is meant for.
    #[serde(default = "default_base_batch")]
    pub lr_base_batch: usize,
    /// Epochs in which the rate rises to its height, step by step; 0 for none.
    #[serde(default)]
    pub lr_warmup_epochs: u64,
    /// The momentum.
    #[serde(default = "default_momentum")]
    pub momentum: f64,
    /// The factor of the weights that is added to their gradients; of all parameters.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
}

impl OptimizerConfig {
    /// The rates of a run of batches of `global_batch` images.
    pub fn schedule(&self, epochs: u64, steps_per_epoch: u64, global_batch: usize) -> Schedule {
        let factor = self.lr_scale.factor(global_batch as f64 / self.lr_base_batch as f64);
        let warm_up = self.lr_warmup_epochs * steps_per_epoch;
        Schedule::new(self.lr_policy.clone(), self.lr, factor, warm_up, epochs * steps_per_epoch)
    }
}

fn default_base_batch() -> usize {
    128
}

fn default_momentum() -> f64 {
    0.9
}

fn default_weight_decay() -> f64 {
    2e-4
}

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Epochs between checkpoints.
    pub every: u64,
    /// Minutes after which one is made within an epoch; 0 for never.
    pub minutes: f64,
    /// How many of the newest are kept.
    pub keep_last: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: 1, minutes: 30.0, keep_last: 2 }
    }
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Steps between two records of the loss.
    pub every: u64,
    /// What is learnt of the teacher and the student in training.
    pub diagnostics: Diagnostics,
    /// The peak of a rank's device in 10^12 floating-point operations a second; measured without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_tflops: Option<f64>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { every: 10, diagnostics: Diagnostics::Full, peak_tflops: None }
    }
}

/// Which predictions the counts of an epoch rest on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Diagnostics {
    /// Student and teacher on natural and adversarial images, with the forward passes that the loss does not need.
    #[default]
    Full,
    /// Those that the loss asks for anyway.
    Free,
}

impl RunConfig {
    /// The configuration as a complete TOML file, losses and overrides written out.
    pub fn resolved(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| unreachable!("a configuration is always TOML: {error}"))
    }

    /// What a run keeps to its end. It may go on over another transport (`[comm]`), as on another number of ranks, and with
    /// recorded steps or without.
    pub fn lasting(&self) -> Self {
        let precision = Precision { cuda_graphs: false, ..self.precision };
        Self { comm: Comm::default(), precision, ..self.clone() }
    }

    /// SHA-256 of what lasts of the resolved configuration, in hexadecimal.
    pub fn hash(&self) -> String {
        hexadecimal(&Sha256::digest(self.lasting().resolved()))
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
