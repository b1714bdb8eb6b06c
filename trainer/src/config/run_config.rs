//! The whole configuration, its resolved form and its identity.

use std::collections::BTreeMap;

use datasets::UserError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    AttackConfig, AttackKind, Averages, Awp, BatchNormConfig, BatchSize, CheckpointConfig, Comm, Data, Evaluation,
    GradAlign, Guard, Learner, LossConfig, MetricsConfig, OptimizerConfig, Precision, Student, Teacher, Watchdog,
};

/// The configuration of a run. It decides all results, but not the number of ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The seed of every random number.
    #[serde(default = "one")]
    pub seed: u64,
    /// Seeds of several runs of this configuration, one after another; each of them has its seed and none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<u64>,
    /// Passes over the training set.
    pub epochs: u64,
    /// The size of a step.
    pub batch: BatchSize,
    /// The images.
    pub data: Data,
    /// The network to train.
    pub student: Student,
    /// Frozen networks for the loss, by name.
    #[serde(default)]
    pub teachers: BTreeMap<String, Teacher>,
    /// Networks that are trained beside the student, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub learners: BTreeMap<String, Learner>,
    /// The attack of training.
    #[serde(default)]
    pub attack: AttackConfig,
    /// The adversarial perturbation of the weights; off by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awp: Option<Awp>,
    /// The alignment of gradients; off by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_align: Option<GradAlign>,
    /// The statistics of batch norm.
    #[serde(default)]
    pub batch_norm: BatchNormConfig,
    /// The objective.
    pub loss: LossConfig,
    /// The optimizer and its learning rate.
    pub optimizer: OptimizerConfig,
    /// Averages of the weights.
    #[serde(default)]
    pub averages: Averages,
    /// Number formats.
    #[serde(default)]
    pub precision: Precision,
    /// The transport between ranks.
    #[serde(default)]
    pub comm: Comm,
    /// The evaluation.
    #[serde(default)]
    pub evaluation: Evaluation,
    /// The checkpoints.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// The records of training.
    #[serde(default)]
    pub metrics: MetricsConfig,
    /// How long a rank may take before it counts as hung.
    #[serde(default, skip_serializing_if = "Watchdog::is_default")]
    pub watchdog: Watchdog,
    /// What the run watches of itself.
    #[serde(default, skip_serializing_if = "Guard::is_default")]
    pub guard: Guard,
}

fn one() -> u64 {
    1
}

impl RunConfig {
    /// The configuration as a complete TOML file, with losses and overrides written out.
    pub fn resolved(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| unreachable!("a configuration is always TOML: {error}"))
    }

    /// The configuration of the run of one seed.
    pub fn of_seed(&self, seed: u64) -> Self {
        Self { seed, seeds: vec![], ..self.clone() }
    }

    /// The part that a run keeps to its end. The transport (`[comm]`), the number of ranks, graph capture, the watchdog and
    /// comparisons of the ranks may change on resume.
    pub fn lasting(&self) -> Self {
        let precision = Precision { cuda_graphs: false, ..self.precision };
        Self {
            seeds: vec![],
            comm: Comm::default(),
            precision,
            watchdog: Watchdog::default(),
            guard: self.guard.lasting(),
            ..self.clone()
        }
    }

    /// Images of an epoch on so many ranks, of a training set of `train` images. `data.extra` fills up its last step.
    pub fn images_of_epoch(&self, train: u64, ranks: usize) -> u64 {
        let step = self.batch.global(ranks) as u64;
        if self.data.extra.is_some() { train.div_ceil(step) * step } else { train }
    }

    /// Refuses a `data.extra.fraction` of which a step on so many ranks has no image, or nothing else.
    ///
    /// # Errors
    /// A [`UserError`] that names the key.
    pub fn check_extra_count(&self, ranks: usize) -> Result<(), UserError> {
        self.data.extra.as_ref().map_or(Ok(()), |extra| extra.check_count(self.batch.global(ranks)))
    }

    /// SHA-256 of that part of the resolved configuration, in hexadecimal.
    pub fn hash(&self) -> String {
        base16ct::lower::encode_string(&Sha256::digest(self.lasting().resolved()))
    }

    /// Why its steps cannot be recorded and replayed on any device, if they cannot: two kinds of them come in turn, and a recording
    /// of one takes the place of the other's; or they begin where others ended.
    pub fn not_recordable(&self) -> Option<&'static str> {
        if self.attack.kind == AttackKind::Free {
            return Some("a step makes several updates, which hand images on");
        }
        let alternates = self.loss.raises_terms() && self.attack.lead.is_none();
        alternates.then_some("the attack raises a term of the loss in every second step alone")
    }

    /// The optimizer of a learner.
    pub fn optimizer_of<'a>(&'a self, learner: &'a Learner) -> &'a OptimizerConfig {
        learner.optimizer.as_ref().unwrap_or(&self.optimizer)
    }

    /// The optimizers of all networks that learn.
    pub(super) fn optimizers(&self) -> impl Iterator<Item = &OptimizerConfig> {
        let own = self.learners.values().filter_map(|learner| learner.optimizer.as_ref());
        std::iter::once(&self.optimizer).chain(own)
    }

    /// The seed of the first values of the learner `name`: networks of one form begin with different ones.
    pub fn seed_of_learner(&self, name: &str) -> u64 {
        let digest = Sha256::digest(format!("{} {name}", self.seed));
        digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
    }
}
