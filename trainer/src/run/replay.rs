//! Repeats a step that went wrong, from the file that was kept of it. The run folder is only read.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use datasets::{Draws, Purpose, Shard, UserError};
use tch::Tensor;

use crate::config::RunConfig;
use crate::method::attack::Noise;
use crate::run::averages::Averages;
use crate::run::context::RunContext;
use crate::run::folder::RunFolder;
use crate::run::networks::build;
use crate::run::state::take_up;
use crate::step::batch::Batch;
use crate::step::diagnostics::Seen;
use crate::step::learners::Place;
use crate::step::{Step, guard};
use crate::system::agreement::agree;
use crate::system::transfer;
use crate::weights::checkpoint::{self, Header, Progress, Tensors};
use crate::weights::guarding::Offence;

/// What came of it.
pub struct Replayed {
    /// What was found, a line each.
    pub lines: Vec<String>,
    /// Whether it is what was found in the run.
    pub reproduced: bool,
}

/// A step that was kept: the file's header, its tensors, and what was wrong.
pub struct Kept {
    header: Header,
    tensors: Tensors,
    offence: Offence,
}

impl Kept {
    /// Reads the step that `path` keeps.
    ///
    /// # Errors
    /// A [`UserError`] for a file that keeps none.
    pub fn read(path: &Path) -> Result<Self> {
        let error = || {
            UserError::expected("a step that a run kept, as in RUN/offending/step-00000040.safetensors")
                .file(path)
                .hint("name the file or its run folder; only steps that went wrong are kept")
        };
        let (mut header, tensors) = checkpoint::read(path).map_err(|problem| error().value(format!("{problem:#}")))?;
        let offence = header.offence.take().ok_or_else(|| error().value("a checkpoint"))?;
        Ok(Self { header, tensors, offence })
    }

    /// The configuration of `folder` with which the step was taken.
    ///
    /// # Errors
    /// A [`UserError`] where the folder has none.
    pub fn config(&self, folder: &RunFolder) -> Result<RunConfig> {
        let mut all = vec![folder.config()?];
        all.extend(folder.earlier_configs()?);
        let found = all.into_iter().find(|config| config.hash() == self.header.config);
        Ok(found.ok_or_else(|| {
            UserError::expected("a step of the run in its folder")
                .file(&folder.path)
                .value("a step of another configuration or version")
        })?)
    }
}

/// Takes the step again on the ranks of `context` and compares what is found.
///
/// # Errors
/// Networks that cannot be built, tensors that do not fit, or a failure of the transport.
pub fn replay(context: &RunContext, kept: &Kept) -> Result<Replayed> {
    let Kept { header, tensors, offence } = kept;
    let (config, ranks) = (context.config, context.ranks());
    let networks = agree(ranks, build(context))?;
    let mut step = Step::new(config, networks, Arc::clone(&context.place.ranks))?;
    let averages = Averages::new(config, &step.work.parameters, &step.work.networks.student);
    agree(ranks, take_up(&step, tensors).and_then(|()| averages.load(&step.work.networks.student, tensors)))?;
    averages.teach(&step.work.networks);
    let batch = agree(ranks, batch(context, tensors))?;
    let Progress { epoch, step: done, .. } = header.progress;
    let steps_per_epoch = context.prepared.train.len().div_ceil(header.global_batch) as u64;
    let rates = config.optimizer.schedule(config.epochs, steps_per_epoch, header.global_batch);
    step.work.optimizer.resume_after(done.saturating_sub(header.guarding.skipped));
    step.work.optimizer.set_momentum(rates.momentum(epoch, done));
    step.work.begin_epoch(config, epoch);
    let place = Place {
        epoch,
        step: done,
        epochs: config.epochs,
        steps_per_epoch,
        global_batch: header.global_batch,
        rate_factor: config.guard.rate_factor.powi(header.guarding.rollbacks as i32),
    };
    step.work.learners.iter_mut().for_each(|learner| learner.begin_step(place));
    step.work.networks.memory.begin_step(epoch, done, rates.steps());
    let terms = config.terms_of_step(epoch, offence.step.saturating_sub(1) % steps_per_epoch);
    let draws = Draws::new(config.seed, Purpose::AttackStart, epoch);
    let noise = Noise::new(&draws, &batch.samples, context.place.device);
    let seen = step.run(&batch, &noise, &terms, offence.rate)?.read()?;
    let now = seen.not_finite.map(|place| guard::name_among(place, step.work.trained()));
    let mut lines = vec![format!(
        "step {} (epoch {}), taken on {} ranks: {}",
        offence.step,
        epoch + 1,
        offence.ranks,
        offence.found
    )];
    if !offence.exact {
        let what = if config.averages_teach() { "the weights, or the average that teaches," } else { "the weights" };
        lines.push(format!(
            "{what} are those of a step or two later: that step had moved them when its numbers were read"
        ));
    }
    lines.extend(images(tensors)?);
    lines.extend(state(tensors)?);
    lines.extend(numbers(&seen, offence));
    lines.push(format!(
        "repeated on {} ranks: {}",
        ranks.world_size(),
        now.as_deref().unwrap_or("every value is finite")
    ));
    let outlier = offence.limit.is_some_and(|limit| seen.norm > limit);
    let reproduced = if offence.not_finite { now.is_some() } else { now.is_none() && outlier };
    Ok(Replayed { lines, reproduced })
}

/// This rank's part of the batch.
fn batch(context: &RunContext, tensors: &Tensors) -> Result<Batch> {
    let ranks = context.ranks();
    let of = |name: &str| tensors.get(name).with_context(|| format!("the file has no {name}"));
    let samples: Vec<i64> = transfer::read(of("batch/samples")?)?.into_iter().map(|sample| sample as i64).collect();
    let shard = Shard { rank: ranks.rank(), world_size: ranks.world_size() };
    let slots: Vec<usize> = shard.slots(samples.len()).collect();
    let rows = Tensor::from_slice(&slots.iter().map(|slot| *slot as i64).collect::<Vec<_>>());
    let mine = |name: &str| -> Result<Tensor> {
        let all = of(name)?;
        let count = all.size().first().copied().unwrap_or(0);
        ensure!(count == samples.len() as i64, "the file has {count} {name} and {} samples", samples.len());
        Ok(all.index_select(0, &rows).to_device(context.place.device))
    };
    Ok(Batch {
        images: mine("batch/images")?,
        labels: mine("batch/labels")?,
        samples: slots.iter().map(|slot| samples[*slot] as u64).collect(),
        global_count: samples.len(),
    })
}

/// What is to be said of the images.
fn images(tensors: &Tensors) -> Result<Vec<String>> {
    let (images, samples) = (&tensors["batch/images"], &tensors["batch/samples"]);
    let sound = transfer::read(&images.isfinite().flatten(1, -1).all_dim(1, false))?;
    let broken: Vec<String> = transfer::read(samples)?
        .iter()
        .zip(&sound)
        .filter(|(_, sound)| **sound == 0.0)
        .map(|(sample, _)| sample.to_string())
        .collect();
    if broken.is_empty() {
        return Ok(vec![format!("all values of the {} images are finite", sound.len())]);
    }
    let (some, more) = broken.split_at(broken.len().min(20));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let (number, all) = (broken.len(), sound.len());
    Ok(vec![format!("{number} of {all} images are not finite: training images {}{more}", some.join(", "))])
}

/// The tensors of the state before the step that are not finite.
fn state(tensors: &Tensors) -> Result<Vec<String>> {
    let mut lines = vec![];
    for (name, tensor) in tensors.iter().filter(|(name, _)| !name.starts_with("batch/")) {
        if transfer::read(&tensor.isfinite().all())?[0] == 0.0 {
            lines.push(format!("before the step, {name} is not finite"));
        }
    }
    Ok(lines)
}

/// The loss by its terms, and the norm of the gradient.
fn numbers(seen: &Seen, offence: &Offence) -> Vec<String> {
    let terms = seen.sums.mean_losses();
    let said = |(name, value): (&String, &f64)| {
        let remark = if value.is_finite() { "" } else { ", which is not finite" };
        format!("loss term {name}: {value}{remark}")
    };
    let mut lines: Vec<String> = terms.iter().map(said).collect();
    if let (Some(then), Some(limit)) = (offence.norm, offence.limit) {
        lines.push(format!(
            "the norm of the gradient: {:.4}; {then:.4} in the run, where {limit:.4} was the limit",
            seen.norm
        ));
    }
    lines
}
