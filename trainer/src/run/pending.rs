//! Steps under way, whose numbers are read when the next one is.

use crate::step::batch::Batch;
use crate::step::diagnostics::Observed;
use crate::system::timeline::Lap;

/// A step whose numbers are not read yet.
pub(super) struct Pending {
    pub(super) observed: Observed,
    pub(super) lap: Lap,
    pub(super) taken: Taken,
}

/// How a step was taken.
pub(super) struct Taken {
    pub(super) rate: f64,
    /// It is kept if something is wrong with the step.
    pub(super) batch: Batch,
    pub(super) judgement: Judgement,
}

/// What a step is judged by.
#[derive(Clone, Copy)]
pub(super) struct Judgement {
    /// The largest norm of a gradient that is no outlier.
    pub(super) limit: f64,
    /// The checkpoint that an outlier leads back to.
    pub(super) back_to: Option<u64>,
}
