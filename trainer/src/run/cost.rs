//! What a run costs, in multiply-adds of convolutions and linear layers: two operations each. Counted from the configuration
//! alone; normalisation, activations and padding rows are left out.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use crate::config::{EMA, Precision, Protocol, RunConfig, STUDENT, Selection, Term};
use crate::method::pass_plan::{Diagnosed, PassPlan, Passes};
use crate::model::{Mode, Model, ModelSpec};

/// Multiply-adds of one forward pass of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Of all layers.
    pub all: u64,
    /// Of the first convolution.
    pub stem: u64,
}

impl Forward {
    /// Measured by sending one black image through a new network.
    pub fn of(form: ModelSpec) -> Self {
        Self::through(&Model::build(form, 0, Kind::Float, Device::Cpu, None), Precision::default())
    }

    /// Measured by sending one black image through `model` in `precision`, which leaves it as it is.
    pub fn through(model: &Model, precision: Precision) -> Self {
        let [channels, height, width] = model.form.image.map(|size| size as i64);
        let image = Tensor::zeros([1, channels, height, width], (model.kind(), model.device()));
        let before = (model.multiply_adds(), model.stem_multiply_adds());
        let _ = no_grad(|| precision.logits(model, &image, Mode::Eval));
        Self { all: model.multiply_adds() - before.0, stem: model.stem_multiply_adds() - before.1 }
    }
}

/// What ranks send each other of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// The number of gradients of a step.
    pub gradients: usize,
    /// The channels of each batch norm.
    pub batch_norms: Vec<usize>,
}

impl Traffic {
    /// That of a network of this form.
    pub fn of(form: ModelSpec) -> Self {
        let model = Model::build(form, 0, Kind::Float, Device::Cpu, None);
        // A mean and a variance each.
        let means = model.statistics.iter().step_by(2).map(|mean| mean.tensor.numel()).collect();
        Self { gradients: model.parameter_count(), batch_norms: means }
    }
}

impl Passes {
    /// Their multiply-adds.
    pub fn multiply_adds(self, one: Forward) -> u64 {
        (self.forward + self.to_image) * one.all + self.to_parameters * (2 * one.all - one.stem)
    }
}

/// The passes of one image in a training step of `epoch`, by network.
pub fn passes(config: &RunConfig, epoch: u64) -> BTreeMap<String, Passes> {
    let terms: Vec<Term> = config.active_terms(epoch).collect();
    let mut passes = PassPlan::new(&terms, &Diagnosed::new(config)).passes(&config.attack);
    if config.perturbs_weights(epoch) {
        let (ascent, student) = (PassPlan::of_ascent(&terms), passes.entry(STUDENT.into()).or_default());
        student.forward += ascent.forward;
        student.to_parameters += ascent.to_parameters;
    }
    if let Some(rectify) = &config.loss.rectify {
        passes.entry(rectify.network.clone()).or_default().forward += 1;
    }
    if config.grad_align.is_some() {
        // The gradient at the image; that near it; and the gradient of that, which passes twice through both directions.
        let student = passes.entry(STUDENT.into()).or_default();
        student.forward += 2;
        student.to_image += 2;
        student.to_parameters += 2;
    }
    passes
}

/// The multiply-adds of a training step of `epoch` for one image, with these networks of the run, by name. The moving average
/// of the student costs what the student costs.
pub fn step_per_image(config: &RunConfig, epoch: u64, networks: &BTreeMap<String, Forward>) -> u64 {
    let average = config.averages_teach();
    let of = |network: &str| if average && network == EMA { networks[STUDENT] } else { networks[network] };
    passes(config, epoch).iter().map(|(network, passes)| passes.multiply_adds(of(network))).sum()
}

/// How many images there are.
#[derive(Debug, Clone, Copy)]
pub struct ImageCounts {
    /// Trained on.
    pub train: u64,
    /// That choose the best weights.
    pub selection: u64,
    /// Of the final evaluation.
    pub test: u64,
}

/// The cost of a run in multiply-adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Of one forward pass of the student on one image.
    pub forward: Forward,
    /// Of a training step for one image: epochs from which it costs so much, from 0 on.
    pub step_per_image: Vec<(u64, u64)>,
    /// Of all training steps.
    pub training: u128,
    /// Of all measurements that choose the best weights.
    pub selection: u128,
    /// Of the final evaluation of one set of weights.
    pub evaluation: u128,
}

/// The cost of the run that `config` describes, with a student that costs `forward`. Teachers and learners that are not in
/// `teachers` cost the same.
pub fn of(config: &RunConfig, forward: Forward, teachers: &BTreeMap<String, Forward>, images: ImageCounts) -> Cost {
    let mut networks: BTreeMap<String, Forward> = config
        .teachers
        .keys()
        .chain(config.learners.keys())
        .map(|name| (name.clone(), teachers.get(name).copied().unwrap_or(forward)))
        .collect();
    networks.insert(STUDENT.into(), forward);

    let mut costs: Vec<(u64, u64)> = vec![];
    let mut training = 0;
    for epoch in 0..config.epochs {
        let cost = step_per_image(config, epoch, &networks);
        if costs.last().is_none_or(|(_, before)| *before != cost) {
            costs.push((epoch, cost));
        }
        training += u128::from(cost) * u128::from(images.train);
    }

    let protocol = Protocol::of(config);
    let selections = match config.evaluation.selection {
        Selection::None => 0,
        _ => config.epochs / config.evaluation.every.max(1) * images.selection,
    };
    let selection = u128::from(selections) * u128::from(config.selection_suite().passes(&protocol) * forward.all);
    // A configuration is checked when it is read: its suite has no unknown names.
    let suite = config.suite().map_or(0, |suite| suite.passes(&protocol));
    let evaluation = u128::from(images.test) * u128::from(suite * forward.all);
    Cost { forward, step_per_image: costs, training, selection, evaluation }
}

#[cfg(test)]
mod tests;
