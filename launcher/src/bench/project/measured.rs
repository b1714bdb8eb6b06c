//! The event model on this machine: a step and sums that were timed apart, played together.

use trainer::config::RunConfig;
use trainer::model::Form;

use super::Run;
use super::simulate::play;

/// A step as it was measured without other ranks, and sums over them by themselves.
pub(crate) struct Measured<'a> {
    /// Seconds of the step, and of its last backward pass.
    pub(crate) seconds: f64,
    pub(crate) backward: f64,
    /// Bytes and seconds, by growing size.
    pub(crate) sums: &'a [(f64, f64)],
}

/// Seconds of the step on `ranks` ranks that talk through a transport without overlap, as MPI's.
pub(crate) fn played_as_measured(
    config: &RunConfig,
    image: [usize; 3],
    classes: usize,
    epoch: u64,
    ranks: usize,
    measured: &Measured,
) -> f64 {
    let form = Form { architecture: config.student.architecture, image, classes };
    let run = Run::new(config, form, epoch);
    let step = run.step(measured.seconds - measured.backward, measured.backward, false);
    play(&step, &vec![1.0; ranks], |bytes| interpolated(measured.sums, bytes)).seconds
}

/// The seconds of so many bytes, on the line between the neighbouring sizes; beyond them as the nearest two go on.
pub(super) fn interpolated(sums: &[(f64, f64)], bytes: f64) -> f64 {
    let after = sums.partition_point(|(size, _)| *size < bytes).clamp(1, sums.len().max(2) - 1);
    let (Some((small, short)), Some((large, long))) = (sums.get(after - 1), sums.get(after)) else { return 0.0 };
    (short + (long - short) * (bytes - small) / (large - small)).max(0.0)
}
