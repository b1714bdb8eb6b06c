//! A plan as data: what `--json` prints.

use serde::Serialize;
use trainer::config::RunConfig;

use super::images::Images;
use super::launches::Kernels;
use super::numbers::{Memory, StepWork, Steps, Sums};
use super::time::Time;
use super::warn::Warning;

/// All that a run would need.
#[derive(Debug, Serialize)]
pub(super) struct Planned {
    pub(super) config: String,
    pub(super) config_sha256: String,
    pub(super) ranks: usize,
    pub(super) network: String,
    /// What it computes in.
    pub(super) precision: String,
    pub(super) parameters: usize,
    pub(super) images: Images,
    pub(super) steps: Steps,
    /// Floating-point operations of a step for one image.
    pub(super) work: Vec<StepWork>,
    pub(super) training_operations: f64,
    pub(super) selection_operations: f64,
    pub(super) evaluation_operations: f64,
    pub(super) sums: Sums,
    /// Kernels of a step on each GPU, where the time is that of GPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kernels: Option<Kernels>,
    /// Bytes of a rank.
    pub(super) memory: Memory,
    /// Seconds.
    pub(super) time: Time,
    pub(super) disk_bytes: f64,
    /// Where runs of several seeds are asked for; the numbers above are those of one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over_seeds: Option<OverSeeds>,
    pub(super) warnings: Vec<Warning>,
    pub(super) resolved: RunConfig,
}

/// The runs of several seeds together.
#[derive(Debug, Serialize)]
pub(super) struct OverSeeds {
    pub(super) seeds: Vec<u64>,
    /// One after another.
    pub(super) seconds: f64,
    pub(super) disk_bytes: f64,
}

impl Planned {
    /// Seconds from the first step of the first run to the last image of the last one's evaluation.
    pub(super) fn seconds(&self) -> f64 {
        self.over_seeds.as_ref().map_or_else(|| self.time.all(), |all| all.seconds)
    }
}
