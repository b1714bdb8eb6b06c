//! `[watchdog]`: how long a rank may take for a stage of a run before it counts as hung.

use datasets::UserError;
use serde::{Deserialize, Serialize};

use super::range::must;
use crate::system::Stage;

/// `[watchdog]`: seconds for each stage; 0 for any length. Without a value, the run's own pace decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watchdog {
    /// Joining, checking inputs, building networks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<f64>,
    /// Waiting for the images of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<f64>,
    /// A step of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
    /// A batch of an evaluation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<f64>,
    /// Saving a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save: Option<f64>,
    /// Leaving the other ranks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<f64>,
}

impl Watchdog {
    /// The seconds that are set for a stage.
    pub fn seconds(&self, stage: Stage) -> Option<f64> {
        match stage {
            Stage::Start => self.start,
            Stage::Data => self.data,
            Stage::Step => self.step,
            Stage::Evaluation => self.evaluation,
            Stage::Save => self.save,
            Stage::End => self.end,
        }
    }

    /// Whether nothing is set, so that nothing is written down.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<(), UserError> {
        Stage::ALL.into_iter().try_for_each(|stage| {
            let seconds = self.seconds(stage).unwrap_or(0.0);
            let key = format!("watchdog.{}", stage.name());
            must((0.0..=1e6).contains(&seconds), key, seconds, "0 (any length) to 1,000,000 seconds")
        })
    }
}
