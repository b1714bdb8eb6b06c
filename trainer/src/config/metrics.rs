//! `[metrics]`: the metrics of training.

use serde::{Deserialize, Serialize};

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Steps between two records of the loss.
    pub every: u64,
    /// The diagnostics of teacher and student during training.
    pub diagnostics: Diagnostics,
    /// The peak of a rank's device in 10^12 floating-point operations a second; measured by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_tflops: Option<f64>,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { every: 10, diagnostics: Diagnostics::Full, peak_tflops: None }
    }
}

/// The predictions that an epoch's counts use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Diagnostics {
    /// Student and teacher on natural and adversarial images, with additional forward passes where the loss does not
    /// need them.
    #[default]
    Full,
    /// Only the predictions that the loss needs anyway.
    Free,
}
