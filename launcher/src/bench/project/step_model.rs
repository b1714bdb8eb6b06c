//! One training step as a sequence of computations and all-reduces, counted from its configuration.

use std::collections::BTreeMap;

use trainer::config::{AcrossRanks, AttackKind, Dtype, GradientDtype, Mode, RunConfig, STUDENT};
use trainer::method::pass_plan::Passes;
use trainer::model::ModelSpec;
use trainer::run::cost::{Forward, Traffic, passes, step_per_image};

use super::simulate::Work;

/// The forward pass and the traffic of each learner, by name.
pub(crate) type Learners = BTreeMap<String, (Forward, Traffic)>;

/// The learners of `config`, beside a student of this form.
pub(crate) fn learners(config: &RunConfig, form: ModelSpec) -> Learners {
    let one = |name: &String, own: ModelSpec| (name.clone(), (Forward::of(own), Traffic::of(own)));
    let networks = config.learners.iter().map(|(name, learner)| (name, learner.network(&config.student)));
    networks.map(|(name, network)| one(name, ModelSpec::of(&network, form.image, form.classes))).collect()
}

/// The parts of a step that do not depend on the cluster.
pub(crate) struct StepModel {
    /// Floating-point operations for one image: of the backward pass to the parameters, and of everything before it.
    pub(crate) backward: f64,
    pub(crate) before: f64,
    /// Bytes of gradients, and of a bucket.
    pub(crate) gradients: f64,
    pub(crate) bucket: f64,
    /// Bytes of batch norm's all-reduces before and in the backward pass, in order.
    pub(crate) sums_before: Vec<f64>,
    pub(crate) sums_in_backward: Vec<f64>,
}

impl StepModel {
    /// A step of `epoch` without fused batch norm, with a student of this form and teachers like it.
    pub(crate) fn new(config: &RunConfig, form: ModelSpec, epoch: u64) -> Self {
        Self::counted(config, epoch, Forward::of(form), &Traffic::of(form), &learners(config, form), None)
    }

    /// The same for a student whose forward pass and traffic are known, and learners; `fused` is the number of ranks whose batch
    /// norm is fused.
    pub(crate) fn counted(
        config: &RunConfig,
        epoch: u64,
        forward: Forward,
        traffic: &Traffic,
        learners: &Learners,
        fused: Option<usize>,
    ) -> Self {
        let names = config.teachers.keys().cloned().chain([STUDENT.to_string()]);
        let mut networks: BTreeMap<String, Forward> = names.map(|name| (name, forward)).collect();
        networks.extend(learners.iter().map(|(name, (forward, _))| (name.clone(), *forward)));
        let whole = 2.0 * step_per_image(config, epoch, &networks) as f64;
        let all = passes(config, epoch);
        let student = all[STUDENT];
        let to_parameters = Passes { forward: 0, to_image: 0, ..student };
        // With [awp], the first half of the passes to the parameters is the ascent's, and its gradients are summed after it.
        let perturbs = config.perturbs_weights(epoch);
        let halves = if perturbs { 2 } else { 1 };
        let mut backward = 2.0 * to_parameters.multiply_adds(forward) as f64 / halves as f64;
        let value = if config.comm.gradient_dtype == GradientDtype::Bfloat16 { 2.0 } else { 4.0 };

        // Forward sums are n, sum x and sum x^2 in float64; backward sums are two gradients for each channel. Fused, each rank has a
        // row of its own, and all is in the type of the parameters.
        let norm_value = if config.precision.dtype == Dtype::Float64 { 8.0 } else { 4.0 };
        let (row, sums) = fused.map_or((8.0, 8.0), |ranks| (norm_value * ranks as f64, norm_value));
        let sync = config.batch_norm.across_ranks == AcrossRanks::Sync;
        let norms = |of: &Traffic| -> [Vec<f64>; 2] {
            let channels = || of.batch_norms.iter().filter(|_| sync).map(|channels| *channels as f64);
            [channels().map(|channels| row * (2.0 * channels + 1.0)).collect(), {
                channels().map(|channels| sums * 2.0 * channels).rev().collect()
            }]
        };
        let [ahead, back] = norms(traffic);
        let attacked = config.attack.kind != AttackKind::None && config.attack.batch_norm != Mode::Eval;
        let steps = if attacked { student.to_image } else { 0 };
        let mut sums_before = vec![];
        (0..steps).for_each(|_| sums_before.extend(ahead.iter().chain(&back)));
        let outer = student.forward - if config.attack.kind == AttackKind::None { 0 } else { student.to_image };
        (0..outer).for_each(|_| sums_before.extend(&ahead));
        let last = student.to_parameters / halves;
        (last..student.to_parameters).for_each(|_| sums_before.extend(&back));
        sums_before.extend(perturbs.then_some(value * traffic.gradients as f64));
        let mut sums_in_backward = vec![];
        (0..last).for_each(|_| sums_in_backward.extend(&back));
        let mut gradients = traffic.gradients;
        for (name, (forward, traffic)) in learners {
            // An attack sees a learner in evaluation mode; a pass that a gradient follows is of the loss.
            let own = all.get(name).copied().unwrap_or_default();
            let [ahead, back] = norms(traffic);
            (0..own.to_parameters).for_each(|_| sums_before.extend(&ahead));
            (0..own.to_parameters).for_each(|_| sums_in_backward.extend(&back));
            let to_parameters = Passes { to_parameters: own.to_parameters, ..Passes::default() };
            backward += 2.0 * to_parameters.multiply_adds(*forward) as f64;
            gradients += traffic.gradients;
        }
        Self {
            backward,
            before: whole - backward,
            gradients: value * gradients as f64,
            bucket: config.comm.bucket_mib * 1048576.0,
            sums_before,
            sums_in_backward,
        }
    }

    /// A step that computes for `before` seconds and then for `backward` seconds in its last backward pass. Without
    /// overlap, all gradients are summed at once at the end.
    pub(crate) fn step(&self, before: f64, backward: f64, overlaps: bool) -> Vec<Work> {
        let mut step = vec![];
        let parts = |seconds: f64, count: usize| Work::Compute(seconds / count.max(1) as f64);
        let before = parts(before, self.sums_before.len());
        if self.sums_before.is_empty() {
            step.push(before);
        }
        for bytes in &self.sums_before {
            step.extend([before, Work::StartSum(*bytes), Work::FinishSums]);
        }
        // Buckets fill, and batch norms sum, at even distances. A batch norm waits for its sum, which queues behind the
        // buckets that were started before it.
        let buckets = if overlaps { (self.gradients / self.bucket).ceil().max(1.0) as usize } else { 1 };
        let norms = self.sums_in_backward.len();
        let pieces = buckets + norms;
        let piece = parts(backward, pieces);
        let (mut filled, mut summed) = (0, 0);
        for _ in 0..pieces {
            step.push(piece);
            // The last bucket is full when the computation is over.
            let due = if filled + 1 == buckets { summed == norms } else { filled * norms <= summed * buckets };
            if due {
                step.push(Work::StartSum(self.gradients / buckets as f64));
                filled += 1;
            } else {
                step.extend([Work::StartSum(self.sums_in_backward[summed]), Work::FinishSums]);
                summed += 1;
            }
        }
        step.push(Work::FinishSums);
        step
    }
}

#[cfg(test)]
mod tests;
