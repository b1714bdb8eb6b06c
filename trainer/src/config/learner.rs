//! `[learners.NAME]`: networks that are trained beside the student in the same run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Architecture, Normalize, OptimizerConfig, RunConfig, Student};

/// `[learners.NAME]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learner {
    /// The architecture; without it, architecture and normalisation are the student's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// The normalisation of images; by default that of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// A finished run folder or a file of weights to begin with; random values without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// The first epoch (from 0) in which steps move its parameters. Its schedule of learning rates begins there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from_epoch: u64,
    /// Its optimizer; without it, one like the student's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer: Option<OptimizerConfig>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Learner {
    /// Its network in the terms of a student, beside this one.
    pub fn network(&self, student: &Student) -> Student {
        let (architecture, normalize) = match self.architecture {
            Some(architecture) => (architecture, self.normalize),
            None => (student.architecture, self.normalize.or(student.normalize)),
        };
        let checkpoint = self.checkpoint.clone();
        Student { architecture, classes: student.classes, normalize, checkpoint, reset_classifier: false }
    }
}

impl RunConfig {
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
