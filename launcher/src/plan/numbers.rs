//! What a run needs, counted from its configuration.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use trainer::config::{EMA, RunConfig, STUDENT, Teacher};
use trainer::method::pass_plan::Passes;
use trainer::model::ModelSpec;
use trainer::run::cost::{self, Cost, Forward, Traffic};
use trainer::run::prepare::find_teacher;
use trainer::weights::checkpoint::read_header;

use super::images::Images;
use crate::bench::project::{Learners, StepModel, learners};

/// A rank's share of a step and the length of the run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Steps {
    /// Images of a step over all ranks.
    pub(super) images: usize,
    /// Of these, the images of `data.extra`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extra: Option<usize>,
    /// Of the rank that has fewest, and most.
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) per_epoch: u64,
    pub(super) all: u64,
}

/// The floating-point operations of a step for one image, 2 for a multiply-add.
#[derive(Debug, Clone, Serialize)]
pub(super) struct StepWork {
    /// The epoch from which it is so.
    pub(super) from_epoch: u64,
    /// Of the attack, of predictions for the loss, and of the backward pass to the parameters.
    pub(super) attack: f64,
    pub(super) predictions: f64,
    pub(super) backward: f64,
}

impl StepWork {
    /// All of it.
    pub(super) fn all(&self) -> f64 {
        self.attack + self.predictions + self.backward
    }
}

/// What ranks sum in a step.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Sums {
    /// The number of sums of batch norm, and their bytes.
    pub(super) batch_norm: usize,
    pub(super) batch_norm_bytes: f64,
    /// Bytes of the gradients.
    pub(super) gradient_bytes: f64,
}

/// Bytes of a rank.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Memory {
    /// Weights, gradients, momentum and averages.
    pub(super) student: f64,
    pub(super) teachers: f64,
    /// Weights, gradients and momentum of the learners.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) learners: f64,
    /// What forward passes keep for their backward pass; unknown where nothing was measured.
    pub(super) activations: Option<f64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Memory {
    /// All that is known.
    pub(super) fn all(&self) -> f64 {
        self.student + self.teachers + self.learners + self.activations.unwrap_or(0.0)
    }
}

/// The numbers of a run.
pub(super) struct Numbers {
    pub(super) form: ModelSpec,
    pub(super) parameters: usize,
    pub(super) traffic: Traffic,
    pub(super) steps: Steps,
    pub(super) work: Vec<StepWork>,
    pub(super) cost: Cost,
    pub(super) sums: Sums,
    /// Bytes of checkpoints and weights that the run folder holds at most.
    pub(super) disk: f64,
    /// Bytes of the teachers' weights.
    pub(super) teachers: f64,
    /// The networks that learn beside the student.
    pub(super) learners: Learners,
}

impl Numbers {
    /// Those of `config` on so many ranks.
    ///
    /// # Errors
    /// The configuration or the weights of a teacher cannot be read.
    pub(super) fn count(config: &RunConfig, images: &Images, ranks: usize) -> Result<Self> {
        let form = ModelSpec::of(&config.student, images.shape, images.classes);
        let (forward, traffic) = (Forward::of(form), Traffic::of(form));
        let mut networks = BTreeMap::from([(STUDENT.to_string(), forward)]);
        let mut teachers = 0.0;
        for (name, teacher) in &config.teachers {
            // Large networks take seconds to make: one like the student is not made again.
            let other = teacher_form(name, teacher, images)?.filter(|other| *other != form);
            networks.insert(name.clone(), other.map_or(forward, Forward::of));
            let gradients = other.map_or(traffic.gradients, |other| Traffic::of(other).gradients);
            teachers += value_bytes(config) * gradients as f64;
        }
        let learners = learners(config, form);
        networks.extend(learners.iter().map(|(name, (forward, _))| (name.clone(), *forward)));
        networks.entry(EMA.into()).or_insert(forward);
        let own: BTreeMap<String, Forward> =
            networks.iter().filter(|(name, _)| *name != STUDENT).map(|(name, one)| (name.clone(), *one)).collect();
        let cost = cost::of(config, networks[STUDENT], &own, images.counts(config, ranks));
        let work = cost.step_per_image.iter().map(|(epoch, _)| step_work(config, *epoch, &networks)).collect();
        let fused = fused_ranks(config, ranks);
        let model = StepModel::counted(config, config.epochs - 1, forward, &traffic, &learners, fused);
        let batch_norm = model.sums_before.iter().chain(&model.sums_in_backward);
        let alone = ranks == 1;
        let sums = Sums {
            batch_norm: if alone { 0 } else { batch_norm.clone().count() },
            batch_norm_bytes: if alone { 0.0 } else { batch_norm.sum() },
            gradient_bytes: if alone { 0.0 } else { model.gradients },
        };
        Ok(Self {
            form,
            parameters: traffic.gradients,
            steps: steps(config, images, ranks),
            work,
            cost,
            sums,
            disk: disk(config, traffic.gradients, values_of(&learners)),
            teachers,
            learners,
            traffic,
        })
    }

    /// The memory of a rank, where an image's forward pass keeps so many bytes.
    pub(super) fn memory(&self, config: &RunConfig, bytes_per_image: Option<f64>) -> Memory {
        let averages = usize::from(config.averages.ema.is_some()) + usize::from(config.averages.swa.is_some());
        let rows = self.steps.most.div_ceil(config.batch.accumulate);
        Memory {
            student: (3 + averages) as f64 * value_bytes(config) * self.parameters as f64,
            teachers: self.teachers,
            learners: 3.0 * value_bytes(config) * values_of(&self.learners) as f64,
            activations: bytes_per_image.map(|bytes| bytes * rows as f64),
        }
    }
}

/// The ranks whose batch norm is fused on GPUs.
pub(super) fn fused_ranks(config: &RunConfig, ranks: usize) -> Option<usize> {
    config.batch_norm.fused.then_some(ranks)
}

/// The trainable values of all learners.
fn values_of(learners: &Learners) -> usize {
    learners.values().map(|(_, traffic)| traffic.gradients).sum()
}

fn value_bytes(config: &RunConfig) -> f64 {
    if config.precision.dtype == trainer::config::Dtype::Float64 { 8.0 } else { 4.0 }
}

fn steps(config: &RunConfig, images: &Images, ranks: usize) -> Steps {
    let batch = config.batch.global(ranks);
    let extra = config.data.extra.as_ref().map(|extra| extra.count(batch));
    // Extra images fill up a batch for which the training images alone do not suffice.
    let all = if extra.is_some() { batch } else { batch.min(images.train as usize).max(1) };
    let per_epoch = images.train.div_ceil(all as u64);
    let (least, most) = (all / ranks, all.div_ceil(ranks));
    Steps { images: all, extra, least, most, per_epoch, all: per_epoch * config.epochs }
}

/// The form of a teacher's network: of its weights, else of the configuration that makes it.
fn teacher_form(name: &str, teacher: &Teacher, images: &Images) -> Result<Option<ModelSpec>> {
    if let Ok(weights) = find_teacher(name, teacher) {
        return Ok(Some(read_header(&weights)?.form));
    }
    if !teacher.config.as_ref().is_some_and(|file| file.is_file()) {
        return Ok(None);
    }
    let config = RunConfig::of_teacher(teacher)?;
    Ok(config.map(|config| ModelSpec::of(&config.student, images.shape, images.classes)))
}

fn step_work(config: &RunConfig, epoch: u64, networks: &BTreeMap<String, Forward>) -> StepWork {
    let mut work = StepWork { from_epoch: epoch, attack: 0.0, predictions: 0.0, backward: 0.0 };
    for (network, all) in cost::passes(config, epoch) {
        // Each pass to the images belongs to a step of the attack, or to [grad_align], with a forward pass before it.
        let attack = Passes { forward: all.to_image, to_image: all.to_image, to_parameters: 0 };
        let predictions = Passes { forward: all.forward - all.to_image, ..Passes::default() };
        let backward = Passes { to_parameters: all.to_parameters, ..Passes::default() };
        let operations = |passes: Passes| 2.0 * passes.multiply_adds(networks[&network]) as f64;
        work.attack += operations(attack);
        work.predictions += operations(predictions);
        work.backward += operations(backward);
    }
    work
}

/// Checkpoints hold weights and momentum, those of learners too, and averages; `best`, `final` and the averages' files hold one
/// network each.
fn disk(config: &RunConfig, parameters: usize, learners: usize) -> f64 {
    let averages = usize::from(config.averages.ema.is_some()) + usize::from(config.averages.swa.is_some());
    // One more while a checkpoint takes the place of the oldest.
    let kept_for_good = config.epochs.checked_div(config.checkpoint.keep_every).unwrap_or(0) as usize;
    let kept_best = config.checkpoint.keep_best as usize;
    let checkpoints = config.checkpoint.keep_last + kept_for_good + kept_best + 1;
    let networks = checkpoints * (2 + averages) + 2 + averages;
    value_bytes(config) * (parameters * networks + learners * 2 * checkpoints) as f64
}
