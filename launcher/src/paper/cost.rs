//! The arithmetic of a run, for estimates without its data.

use trainer::config::RunConfig;

use super::file::DatasetSize;

/// Floating-point operations of a run, 2 for a multiply-add.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Those of its training steps.
    pub(super) training: f64,
    /// Those of choosing the best weights.
    pub(super) selection: f64,
}

impl Cost {
    /// All of them.
    pub(super) fn total(&self) -> f64 {
        self.training + self.selection
    }
}

/// That of a run on a data set of this size.
pub(super) fn of(_config: &RunConfig, _size: &DatasetSize) -> Option<Cost> {
    None
}
