//! How long a run would take: by a short measurement on this machine, or projected to a GPU.

use std::path::Path;

use anyhow::Result;
use datasets::UserError;
use serde::Serialize;
use trainer::bench::calibrate::{Calibration, calibrate};
use trainer::config::{Dtype, Named, Precision, RunConfig};

use super::launches::{Counted, assumed};
use super::numbers::{Numbers, StepWork, fused_ranks};
use crate::bench::project::{Cluster, StepModel, play};

/// A GPU by its name: the cluster of such GPUs, and the share of the peak that other types than bfloat16 have.
const GPUS: [(&str, &str, f64, f64); 2] = [
    // float32 without tensor cores and TF32 with them, of dense bfloat16: 67 and 494.7 of 989.4 (NVIDIA's data sheet).
    ("h100", include_str!("../../../configs/clusters/dgx_h100_infiniband.toml"), 67.0 / 989.4, 0.5),
    // 19.5 and 156 of 312.
    ("a100", include_str!("../../../configs/clusters/dgx_a100_infiniband.toml"), 19.5 / 312.0, 0.5),
];

/// Seconds of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Time {
    /// How they are known.
    pub(super) basis: String,
    /// Of a step, from each epoch on at which the work of a step changes.
    pub(super) step: Vec<f64>,
    pub(super) training: f64,
    /// Of choosing the best weights, and of the final evaluation.
    pub(super) selection: f64,
    pub(super) evaluation: f64,
}

impl Time {
    /// From the first step to the last image of the evaluation.
    pub(super) fn all(&self) -> f64 {
        self.training + self.selection + self.evaluation
    }
}

/// The measurement of this machine.
pub(super) fn measure(config: &RunConfig, numbers: &Numbers) -> Calibration {
    calibrate(numbers.form, config.precision, true)
}

/// By the measurement: all ranks on this machine's cores, or each on a GPU like this one's. Sums over ranks are left out.
pub(super) fn by_measurement(config: &RunConfig, numbers: &Numbers, ranks: usize, found: &Calibration) -> Time {
    let (images, all) =
        if found.gpu { (numbers.steps.most, found.flops * ranks as f64) } else { (numbers.steps.images, found.flops) };
    let step = numbers.work.iter().map(|work| work.all() * images as f64 / found.flops).collect();
    let place = match (found.gpu, ranks) {
        (true, _) => "on GPUs like this machine's",
        (false, 1) => "on this machine's cores",
        (false, _) => "with all ranks on this machine's cores",
    };
    let basis = format!("a measurement of some seconds, {place}, without sums over ranks and reading of images");
    total(config, numbers, basis, step, [all; 2])
}

/// On so many GPUs of a kind.
///
/// # Errors
/// There is no GPU or file of this name.
pub(super) fn on_gpu(
    config: &RunConfig,
    numbers: &Numbers,
    launched: &Counted,
    ranks: usize,
    gpu: &str,
) -> Result<Time> {
    let (cluster, share) = find(gpu, config.precision.on(true))?;
    let rate = cluster.gpu.peak_tflops * 1e12 * cluster.gpu.utilisation * share;
    let step = numbers.work.iter().enumerate().map(|(place, work)| {
        let fused = fused_ranks(config, ranks);
        let mut model = StepModel::counted(
            config,
            work.from_epoch,
            numbers.cost.forward,
            &numbers.traffic,
            &numbers.learners,
            fused,
        );
        if ranks == 1 {
            (model.sums_before, model.sums_in_backward) = (vec![], vec![]);
        }
        let host = launched.seconds(place, [model.sums_before.len(), model.sums_in_backward.len()]);
        // The model takes teachers for networks like the student: the work is the counted one.
        let images = numbers.steps.most as f64;
        let (before, backward) = ((work.attack + work.predictions) * images / rate, work.backward * images / rate);
        // The GPU computes what it was given; where that is little, it waits for the host.
        let step = model.step(before.max(host[0]), backward.max(host[1]), true);
        play(&step, &vec![1.0; ranks], |bytes| cluster.seconds_of_sum(bytes, ranks)).seconds
    });
    let basis = format!(
        "{}: {:.0} TFLOP/s of each GPU, an assumption ({:.0} % of the peak of this type), and the links of {} GPUs a node; \
         {}",
        cluster.name,
        rate / 1e12,
        100.0 * cluster.gpu.utilisation,
        cluster.gpus_per_node,
        assumed()
    );
    let step = step.collect();
    // Selection and evaluation round nothing unless they are told to.
    let rate_in = |dtype: Dtype| -> Result<f64> {
        let (cluster, share) = find(gpu, Precision { name: Named::Strict, dtype, ..Precision::default() })?;
        Ok(cluster.gpu.peak_tflops * 1e12 * cluster.gpu.utilisation * share * ranks as f64)
    };
    let trained = config.precision.dtype;
    let rates = [rate_in(trained.of_evaluation())?, rate_in(trained.evaluated_in(config.evaluation.precision))?];
    Ok(total(config, numbers, basis, step, rates))
}

fn find(gpu: &str, precision: Precision) -> Result<(Cluster, f64)> {
    if let Some((name, text, float32, tf32)) = GPUS.iter().find(|(name, ..)| name.eq_ignore_ascii_case(gpu)) {
        let share = match precision.dtype {
            Dtype::Bfloat16 => 1.0,
            Dtype::Tf32 => *tf32,
            // Nearly all of a network's work is convolutions.
            Dtype::Float32 if precision.rounds_convolutions() => *tf32,
            Dtype::Float32 | Dtype::Auto => *float32,
            // Half of the rate of float32 on these GPUs.
            Dtype::Float64 => *float32 / 2.0,
        };
        return Ok((Cluster::parse(text, Path::new(name))?, share));
    }
    if Path::new(gpu).is_file() {
        return Ok((Cluster::read(Path::new(gpu))?, 1.0));
    }
    let names = GPUS.map(|(name, ..)| name);
    let expected = format!("{}, or a file as in configs/clusters", names.join(", "));
    Err(UserError::expected(expected).key("--gpu").value(gpu).did_you_mean(gpu, names).into())
}

/// The seconds of the run, from those of its steps and the rates of all ranks together in selection and in evaluation.
fn total(config: &RunConfig, numbers: &Numbers, basis: String, step: Vec<f64>, rates: [f64; 2]) -> Time {
    let ends = numbers.work.iter().skip(1).map(|work: &StepWork| work.from_epoch).chain([config.epochs]);
    let epochs = numbers.work.iter().zip(ends).map(|(work, end)| end - work.from_epoch);
    let training = epochs.zip(&step).map(|(epochs, seconds)| (epochs * numbers.steps.per_epoch) as f64 * seconds).sum();
    let seconds = |multiply_adds: u128, rate: f64| 2.0 * multiply_adds as f64 / rate;
    let (selection, evaluation) =
        (seconds(numbers.cost.selection, rates[0]), seconds(numbers.cost.evaluation, rates[1]));
    Time { basis, step, training, selection, evaluation }
}
