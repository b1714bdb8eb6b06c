//! How many kernels the host gives to a GPU in a step. Operations are counted on the CPU and multiplied by the kernels that libtorch
//! 2.11 launches for each on a GPU: a model, since no GPU counts here.

use std::sync::Arc;

use anyhow::Result;
use comm::Single;
use tch::{Device, Kind, Tensor, no_grad};
use torch_ext::{Called, Operations, Sum, count_operations};

use super::Bench;
use crate::config::{Architecture, Per, Precision, RunConfig, STUDENT};
use crate::method::pass_plan::Passes;
use crate::model::{Mode, Model, ModelSpec, OverRanks};
use crate::run::cost;
use crate::system::{Activity, Worker};

/// How batch norm finds its statistics in training passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistics {
    /// Of this rank's images.
    Own,
    /// Of all ranks, merged in double precision.
    Exact,
    /// Of all ranks, by libtorch's fused kernels.
    Fused,
}

/// Kernels of a step on one rank, without those of sums over the ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Launches {
    /// Until the last backward pass to the parameters begins, and after it.
    pub before: f64,
    /// In the last backward passes to the parameters.
    pub backward: f64,
}

impl Launches {
    /// All of them.
    pub fn all(self) -> f64 {
        self.before + self.backward
    }
}

/// What a step launches, by what does so.
pub struct StepLaunches {
    /// What does not depend on the network.
    rest: f64,
    student: Network,
    /// Forward passes of teachers.
    taught: f64,
    passes: Passes,
    /// The parts of a step, each of which makes all passes.
    parts: f64,
    /// Whether passes to the image use statistics of the batch.
    attack_measures: bool,
    /// Kernels of a batch norm that merges statistics in double precision, forward and backward.
    exact: [f64; 2],
    /// The share of the passes to the parameters that are not the step's last.
    ascends: f64,
}

/// Kernels of one pass.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    /// Of everything but batch norm.
    others: f64,
    norms: f64,
}

/// Those of one network.
#[derive(Clone, Copy)]
struct Network {
    forward: Pass,
    to_image: Pass,
    to_parameters: Pass,
    /// Forward, frozen, with batch norm folded.
    as_teacher: f64,
}

/// Kernels of a batch norm forward and backward: libtorch's own (statistics, their inverse with the running ones, the maps; one
/// kernel back).
const OWN: [f64; 2] = [3.0, 1.0];
/// Statistics, message, merging, maps; reduction, message, maps.
const FUSED: [f64; 2] = [4.0, 3.0];

impl StepLaunches {
    /// Counts those of a step of each of these epochs, with teachers like the student, which has this form.
    ///
    /// # Errors
    /// A step that cannot be taken on two images.
    pub fn count(config: &RunConfig, form: ModelSpec, epochs: &[u64]) -> Result<Vec<Self>> {
        let small = ModelSpec { architecture: Architecture::ConvNet, ..form };
        let precision = Precision { cuda_graphs: false, ..config.precision.on(true) };
        let parts = config.batch.accumulate;
        let mut alone = config.clone();
        (alone.precision, alone.batch.size, alone.batch.per) = (precision, 2 * parts, Per::Global);
        let (student, stand_in) = (Network::count(narrowed(form), precision), Network::count(small, precision));
        let exact = exact();
        let of_epoch = |epoch: &u64| {
            let place = Worker { ranks: Arc::new(Single), device: Device::Cpu, activity: Activity::default() };
            let mut bench = Bench::new(&alone, small, *epoch, &place)?;
            // The first step makes what later ones find.
            bench.run()?;
            let (step, operations) = count_operations(|| bench.run());
            step?;
            let all = cost::passes(config, *epoch);
            let taught = all.iter().filter(|(name, _)| *name != STUDENT).map(|(_, passes)| passes.forward as f64);
            let mut found = Self {
                rest: 0.0,
                student: stand_in,
                taught: taught.sum(),
                passes: all[STUDENT],
                parts: parts as f64,
                attack_measures: config.attack.batch_norm != Mode::Eval,
                exact,
                ascends: if config.perturbs_weights(*epoch) { 0.5 } else { 0.0 },
            };
            // What is left of a step of the stand-in without its passes.
            found.rest = (kernels(&operations).others - found.of(Statistics::Own).all()).max(0.0);
            Ok(Self { student, ..found })
        };
        epochs.iter().map(of_epoch).collect()
    }

    /// The kernels of the step with such statistics.
    pub fn of(&self, statistics: Statistics) -> Launches {
        let Self { student, passes, .. } = self;
        let over_ranks = match statistics {
            Statistics::Own => OWN,
            Statistics::Exact => self.exact,
            Statistics::Fused => FUSED,
        };
        let pass = |pass: Pass, [measured, own]: [f64; 2], share: f64| {
            pass.others + pass.norms * (share * measured + (1.0 - share) * own)
        };
        let [forward, back] = [0, 1].map(|way| [over_ranks[way], OWN[way]]);
        let attack = if self.attack_measures { 1.0 } else { 0.0 };
        let (in_attack, outside) = (passes.to_image as f64, (passes.forward - passes.to_image) as f64);
        let to_parameters = self.parts * passes.to_parameters as f64 * pass(student.to_parameters, back, 1.0);
        let passes = in_attack * (pass(student.forward, forward, attack) + pass(student.to_image, back, attack))
            + outside * pass(student.forward, forward, 1.0)
            + self.taught * student.as_teacher;
        let before = self.rest + self.parts * passes + self.ascends * to_parameters;
        Launches { before, backward: (1.0 - self.ascends) * to_parameters }
    }
}

impl Network {
    /// Counted in passes of two images.
    fn count(form: ModelSpec, precision: Precision) -> Self {
        let [channels, height, width] = form.image.map(|size| size as i64);
        let network = Model::build(form, 0, precision.dtype.kind(), Device::Cpu, None);
        precision.lay_out(&network);
        let images = Tensor::zeros([2, channels, height, width], (network.kind(), Device::Cpu));
        let images = images.set_requires_grad(true);
        let casts = precision.casts();
        let ahead = || precision.logits(&network, &images, Mode::Train);
        // Weights are cast once.
        let loss = ahead().sum(Kind::Float);
        let (_, forward) = count_operations(ahead);
        let (_, to_image) = count_operations(|| Tensor::run_backward(&[&loss], &[&images], true, false));
        let _ = images.set_requires_grad(false);
        let loss = ahead().sum(Kind::Float);
        let (_, to_parameters) = count_operations(|| loss.backward());
        drop(casts);
        precision.freeze(&network);
        let teach = || no_grad(|| precision.logits(&network, &images, Mode::Eval));
        // Folded weights are made once.
        drop(teach());
        let (_, taught) = count_operations(teach);
        let [forward, to_image, to_parameters] = [forward, to_image, to_parameters].map(|found| kernels(&found));
        Self { forward, to_image, to_parameters, as_teacher: kernels(&taught).others }
    }
}

/// A network of as many operations and fewer channels.
fn narrowed(form: ModelSpec) -> ModelSpec {
    let architecture = match form.architecture {
        Architecture::WideResNet { depth, width } => Architecture::WideResNet { depth, width: width.min(2) },
        other => other,
    };
    ModelSpec { architecture, ..form }
}

/// Kernels of a batch norm whose statistics are merged in double precision, forward and backward: the mean over those of a network.
fn exact() -> [f64; 2] {
    let form = ModelSpec::new(Architecture::ResNet8, [3, 16, 16], 2);
    let images = Tensor::zeros([2, 3, 16, 16], (Kind::Float, Device::Cpu));
    let count = |sum: Option<Sum>| {
        let reached = sum.map(|sum| OverRanks { sum, fused: None });
        let network = Model::build(form, 0, Kind::Float, Device::Cpu, reached);
        let (logits, forward) = count_operations(|| network.logits(&images, Mode::Train));
        let loss = logits.sum(Kind::Float);
        let (_, backward) = count_operations(|| loss.backward());
        [forward, backward].map(|found| kernels(&found))
    };
    let (own, merged) = (count(None), count(Some(Arc::new(|_: &mut Tensor| Ok(())))));
    [0, 1].map(|way| (merged[way].others + merged[way].norms * OWN[way] - own[way].others) / own[way].norms)
}

/// The kernels that a GPU is given for counted operations.
fn kernels(operations: &Operations) -> Pass {
    let mut pass = Pass::default();
    for (name, called) in operations {
        match name.strip_prefix("aten::").unwrap_or(name) {
            "native_batch_norm" | "native_batch_norm_backward" => pass.norms += called.times as f64,
            name => pass.others += (called.times * each(name, *called)) as f64,
        }
    }
    pass
}

/// The kernels of one operation: 0 where it only makes or looks at memory.
fn each(name: &str, called: Called) -> u64 {
    match name {
        name if name.starts_with("empty") || name.starts_with("new_empty") => 0,
        "view"
        | "_unsafe_view"
        | "_reshape_alias"
        | "as_strided"
        | "expand"
        | "permute"
        | "transpose"
        | "t"
        | "slice"
        | "select"
        | "narrow"
        | "squeeze"
        | "unsqueeze"
        | "detach"
        | "detach_"
        | "alias"
        | "split"
        | "split_with_sizes"
        | "unbind"
        | "diagonal"
        | "unfold"
        | "set_"
        | "resize_"
        | "lift_fresh"
        | "_local_scalar_dense"
        | "set_data"
        | "view_as_real"
        | "is_same_size"
        | "_has_compatible_shallow_copy_type"
        | "scalar_tensor" => 0,
        // One for each gradient that is asked for.
        "convolution_backward" => called.tensors.div_ceil(called.times.max(1)),
        "sort" | "topk" => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
