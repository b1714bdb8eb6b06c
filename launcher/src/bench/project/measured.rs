//! The event model on this machine: simulates a step together with sums that were timed separately.

use trainer::config::RunConfig;
use trainer::model::ModelSpec;

use super::simulate::play;
use super::step_model::StepModel;

/// A step timed without other ranks, and sums timed by themselves.
pub(crate) struct MeasuredStep<'a> {
    /// Seconds of the step and of its last backward pass.
    pub(crate) seconds: f64,
    pub(crate) backward: f64,
    /// Bytes and seconds, in increasing order of size.
    pub(crate) sums: &'a [(f64, f64)],
}

/// Seconds of the step on `ranks` ranks over a transport without overlap, such as MPI.
pub(crate) fn played_as_measured(
    config: &RunConfig,
    image: [usize; 3],
    classes: usize,
    epoch: u64,
    ranks: usize,
    measured: &MeasuredStep,
) -> f64 {
    let form = ModelSpec::of(&config.student, image, classes);
    let run = StepModel::new(config, form, epoch);
    let step = run.step(measured.seconds - measured.backward, measured.backward, false);
    play(&step, &vec![1.0; ranks], |bytes| interpolated(measured.sums, bytes)).seconds
}

/// The seconds of a sum of this size, by linear interpolation between the neighbouring sizes and extrapolation of the
/// outermost two.
pub(super) fn interpolated(sums: &[(f64, f64)], bytes: f64) -> f64 {
    let after = sums.partition_point(|(size, _)| *size < bytes).clamp(1, sums.len().max(2) - 1);
    let (Some((small, short)), Some((large, long))) = (sums.get(after - 1), sums.get(after)) else { return 0.0 };
    (short + (long - short) * (bytes - small) / (large - small)).max(0.0)
}
