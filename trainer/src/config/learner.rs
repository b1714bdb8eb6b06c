//! `[learners.NAME]`: networks that are trained beside the student in the same run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Architecture, Normalize, OptimizerConfig, Student};

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
