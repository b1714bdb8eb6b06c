use std::path::Path;
use trainer::model::ModelSpec;

use super::super::measured::interpolated;
use super::super::projection::deviation;
use super::*;

fn step_of(overrides: &[&str], images: f64, rate: f64) -> (StepModel, Vec<Work>) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/paper/runs/cifar10_resnet18_iad1.toml");
    let overrides = overrides.iter().chain(&["batch_norm.compat=lean"]).map(|text| text.parse().unwrap());
    let overrides: Vec<_> = overrides.collect();
    let config = RunConfig::read(&config, &overrides).unwrap();
    let form = ModelSpec::of(&config.student, [3, 32, 32], 10);
    let run = StepModel::new(&config, form, config.epochs - 1);
    let step = run.step(run.before * images / rate, run.backward * images / rate, true);
    (run, step)
}

/// Seconds of computation, and the bytes of all sums.
fn totals(step: &[Work]) -> (f64, f64) {
    step.iter().fold((0.0, 0.0), |(seconds, bytes), work| match work {
        Work::Compute(more) => (seconds + more, bytes),
        Work::StartSum(more) => (seconds, bytes + more),
        Work::FinishSums => (seconds, bytes),
    })
}

#[test]
fn a_step_computes_all_its_operations_and_sends_all_its_bytes() {
    for overrides in [&["batch_norm.across_ranks=local"][..], &["batch_norm.across_ranks=sync", "comm.bucket_mib=1"]] {
        let (run, step) = step_of(overrides, 16.0, 1e12);
        let (seconds, bytes) = totals(&step);
        // 28 forward passes of 1.111 GFLOP (the student's and the teacher's), in TFLOP/s.
        assert!((seconds / (16.0 * 28.0 * 1.111e9 / 1e12) - 1.0).abs() < 0.01, "{seconds} s");
        let sums: f64 = run.sums_before.iter().chain(&run.sums_in_backward).sum();
        assert!((bytes / (4.0 * 11_173_962.0 + sums) - 1.0).abs() < 1e-12);
        assert_eq!(step.last(), Some(&Work::FinishSums));
    }
    // 20 batch norms: forward and backward in 10 steps of the attack, two passes after it, both with a gradient.
    let (run, step) = step_of(&["batch_norm.across_ranks=sync", "comm.bucket_mib=1"], 16.0, 1e12);
    assert_eq!((run.sums_before.len(), run.sums_in_backward.len()), (20 * 22, 20 * 2));
    let buckets = step.iter().filter(|work| **work == Work::StartSum(run.gradients / 43.0)).count();
    assert_eq!(buckets, 43);
    let (run, _) = step_of(&["batch_norm.across_ranks=local", "comm.gradient_dtype=bfloat16"], 16.0, 1e12);
    assert_eq!((run.sums_before.len(), run.gradients), (0, 2.0 * 11_173_962.0));
}

/// A learner like the student: one more pass in the loss, with its gradients and their sum.
#[test]
fn a_learner_adds_its_pass_and_its_gradients() {
    let (run, step) = step_of(&["loss.preset=lbgat", "batch_norm.across_ranks=sync"], 16.0, 1e12);
    assert_eq!(run.gradients, 4.0 * 2.0 * 11_173_962.0);
    // The file's attack uses batch statistics: 10 passes forward and back, and one of natural images. In the loss the student sees
    // two kinds of images, the learner one.
    assert_eq!((run.sums_before.len(), run.sums_in_backward.len()), (20 * (21 + 3), 20 * 3));
    // Forward passes and backward ones, which cost as much: 10 and 10 in the attack and one before it; three and three in the loss,
    // whose backward passes to the parameters cost twice.
    let passes = 10.0 + 10.0 + 1.0 + 3.0 + 2.0 * 3.0;
    assert!((totals(&step).0 / (16.0 * passes * 1.111e9 / 1e12) - 1.0).abs() < 0.01, "{} s", totals(&step).0);
}

#[test]
fn sums_between_sizes_lie_on_a_line() {
    let sums = [(0.0, 1.0), (10.0, 2.0), (30.0, 8.0)];
    for (bytes, expected) in [(0.0, 1.0), (5.0, 1.5), (10.0, 2.0), (20.0, 5.0), (30.0, 8.0), (40.0, 11.0)] {
        assert!((interpolated(&sums, bytes) - expected).abs() < 1e-12, "{bytes}");
    }
    assert_eq!(interpolated(&[], 5.0), 0.0);
}

#[test]
fn deviations_have_mean_0_and_deviation_1() {
    let all: Vec<f64> = (0..8).flat_map(|step| (0..500).map(move |gpu| deviation(step, gpu))).collect();
    let mean = all.iter().sum::<f64>() / all.len() as f64;
    let variance = all.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / all.len() as f64;
    assert!(mean.abs() < 0.06 && (variance - 1.0).abs() < 0.08, "mean {mean}, variance {variance}");
}
