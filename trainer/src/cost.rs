//! What a run costs, in multiply-adds of convolutions and linear layers: two operations each. Counted from the configuration
//! alone; normalisation, activations and padding rows are left out.

use std::collections::{BTreeMap, HashMap};

use tch::{Device, Kind, Tensor, no_grad};

use crate::config::{AttackKind, Diagnostics, Precision, RunConfig, Selection};
use crate::evaluate::{Protocol, Suite};
use crate::loss::{Prediction, Target, Term};
use crate::model::{Form, Mode, Model};
use crate::observe::observed_teacher;
use crate::views::{Images, STUDENT};

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
    pub fn of(form: Form) -> Self {
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
    pub fn of(form: Form) -> Self {
        let model = Model::build(form, 0, Kind::Float, Device::Cpu, None);
        // A mean and a variance each.
        let means = model.statistics.iter().step_by(2).map(|mean| mean.tensor.numel()).collect();
        Self { gradients: model.parameter_count(), batch_norms: means }
    }
}

/// The passes of one image through one network in a training step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passes {
    /// Forward.
    pub forward: u64,
    /// Back to the image, in the attack: as costly as a forward pass.
    pub to_image: u64,
    /// Back to the parameters: the gradients of all weights, and of all layers' inputs but the first.
    pub to_parameters: u64,
}

impl Passes {
    /// Their multiply-adds.
    pub fn multiply_adds(self, one: Forward) -> u64 {
        (self.forward + self.to_image) * one.all + self.to_parameters * (2 * one.all - one.stem)
    }
}

/// The passes of one image in a training step of `epoch`, by network.
pub fn passes(config: &RunConfig, epoch: u64) -> BTreeMap<String, Passes> {
    let mut all = BTreeMap::<String, Passes>::new();
    // Each prediction is made once; whether a gradient flows into it.
    let mut views = HashMap::<(String, Images), bool>::new();
    let attacks = config.attack.kind != AttackKind::None;
    if attacks {
        attack(config, &mut all, &mut views);
    }

    let mut need = |network: &str, images: Images, gradient: bool| {
        *views.entry((network.to_string(), images)).or_default() |= gradient;
    };
    let mut seen = vec![];
    let terms: Vec<Term> = config.active_terms(epoch).collect();
    for term in &terms {
        if term.weight == 0.0 {
            all.entry(STUDENT.into()).or_default().forward += 1;
            seen.push(term.of);
            continue;
        }
        need(STUDENT, term.of, true);
        if let Target::Prediction(Prediction { network, images }) = &term.towards {
            need(network, *images, network == STUDENT && !term.stop_gradient);
        }
        if let Some(trust) = &term.trust {
            need(&trust.teacher, Images::Adversarial, false);
        }
    }
    if config.metrics.diagnostics == Diagnostics::Full {
        let shown =
            [Images::Natural, Images::Adversarial].into_iter().filter(|images| attacks || *images == Images::Natural);
        for images in shown {
            if !seen.contains(&images) {
                need(STUDENT, images, false);
            }
            if let Some(teacher) = observed_teacher(config) {
                need(teacher, images, false);
            }
        }
    }
    for ((network, _), gradient) in views {
        let passes = all.entry(network).or_default();
        passes.forward += 1;
        passes.to_parameters += u64::from(gradient);
    }
    all
}

fn attack(config: &RunConfig, all: &mut BTreeMap<String, Passes>, views: &mut HashMap<(String, Images), bool>) {
    let steps = config.attack.steps as u64;
    let search = Passes { forward: steps, to_image: steps, to_parameters: 0 };
    all.insert(STUDENT.into(), search);
    match &config.attack.towards {
        // The student's has no gradient and may be of another mode: the loss makes its own. A teacher's serves both.
        Target::Prediction(Prediction { network, images: Images::Natural }) if network == STUDENT => {
            all.entry(network.clone()).or_default().forward += 1;
        }
        Target::Prediction(Prediction { network, images: Images::Natural }) => {
            views.insert((network.clone(), Images::Natural), false);
        }
        // A teacher that looks at each candidate is searched through as well.
        Target::Prediction(Prediction { network, images: Images::Adversarial }) => {
            all.insert(network.clone(), search);
        }
        Target::Label => {}
    }
}

/// The multiply-adds of a training step of `epoch` for one image, with these networks of the run, by name.
pub fn step_per_image(config: &RunConfig, epoch: u64, networks: &BTreeMap<String, Forward>) -> u64 {
    passes(config, epoch).iter().map(|(network, passes)| passes.multiply_adds(networks[network])).sum()
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

/// The cost of the run that `config` describes, with a student that costs `forward`. Teachers that are not in `teachers` cost
/// the same.
pub fn of(config: &RunConfig, forward: Forward, teachers: &BTreeMap<String, Forward>, images: ImageCounts) -> Cost {
    let mut networks: BTreeMap<String, Forward> =
        config.teachers.keys().map(|name| (name.clone(), teachers.get(name).copied().unwrap_or(forward))).collect();
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
    let suite_passes = |names: &mut dyn Iterator<Item = &str>| -> u64 {
        Suite::named(names).map_or(0, |suite| suite.passes(&protocol))
    };
    let chosen: &[&str] = if config.attack.kind == AttackKind::None { &["natural"] } else { &["natural", "pgd10"] };
    let selections = match config.evaluation.selection {
        Selection::None => 0,
        _ => config.epochs / config.evaluation.every.max(1) * images.selection,
    };
    let selection = u128::from(selections) * u128::from(suite_passes(&mut chosen.iter().copied()) * forward.all);
    let suite = suite_passes(&mut config.evaluation.suite.iter().map(String::as_str));
    let evaluation = u128::from(images.test) * u128::from(suite * forward.all);
    Cost { forward, step_per_image: costs, training, selection, evaluation }
}

#[cfg(test)]
mod tests;
