//! Warnings about a run, each with the way out.

use serde::Serialize;
use trainer::config::{AcrossRanks, LrScale, RunConfig};
use trainer::run::prepare::find_teacher;

use super::images::Images;
use super::numbers::{Memory, Numbers};
use crate::console::bytes;
use crate::draw::grouped;

/// Statistics of fewer images than this are noisy.
const FEW: usize = 32;
/// The global batch of the paper and of most recipes.
const USUAL: usize = 128;
/// Sums of a step from which latency counts.
const MANY: usize = 100;

/// A warning and its way out.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Warning {
    pub(super) text: String,
    pub(super) next: String,
}

fn warning(text: impl Into<String>, next: impl Into<String>) -> Warning {
    Warning { text: text.into(), next: next.into() }
}

/// All warnings of a run on so many ranks.
pub(super) fn warnings(config: &RunConfig, images: &Images, numbers: &Numbers, ranks: usize) -> Vec<Warning> {
    let mut all = vec![];
    if let Some(missing) = &images.missing {
        let (text, next) = missing.split_once("\n  next: ").unwrap_or((missing, "make the images first"));
        all.push(warning(text, next));
    }
    all.extend(teachers(config));
    all.extend(batch(config, numbers, ranks));
    all.extend(config.warnings().into_iter().map(|text| warning(text, "docs/configuration.md explains the keys")));
    all
}

fn teachers(config: &RunConfig) -> impl Iterator<Item = Warning> {
    config.teachers.iter().filter_map(|(name, teacher)| {
        find_teacher(name, teacher).err()?;
        let folder = teacher.checkpoint.display();
        Some(match &teacher.config {
            Some(file) => warning(
                format!("the teacher {name} is missing: it would be trained first, into {folder}"),
                format!("`iad-launch plan {}` tells what that needs", file.display()),
            ),
            None => warning(
                format!("the teacher {name} is missing ({folder}), and no configuration makes it"),
                format!("set teachers.{name}.config to the configuration that makes it, or teachers.{name}.checkpoint to weights"),
            ),
        })
    })
}

fn batch(config: &RunConfig, numbers: &Numbers, ranks: usize) -> Vec<Warning> {
    let mut all = vec![];
    let steps = &numbers.steps;
    if steps.least == 0 {
        all.push(warning(
            format!("{ranks} ranks share {} images of a step: some have none", steps.images),
            format!("start at most {} ranks, or raise batch.size", steps.images),
        ));
    }
    let local = config.batch_norm.across_ranks == AcrossRanks::Local;
    if ranks > 1 && !numbers.traffic.batch_norms.is_empty() && local && steps.least < FEW {
        all.push(warning(
            format!("each rank's batch norm measures {} images: its statistics are noisy", steps.least),
            format!("set batch_norm.across_ranks = \"sync\", or give each rank {FEW} images or more (batch.size, fewer ranks)"),
        ));
    }
    if ranks > 1 && !local && numbers.sums.batch_norm >= MANY {
        all.push(warning(
            format!(
                "batch norm over the ranks needs {} small sums in a step: their latency counts, {:.0} ms at 20 us each",
                grouped(numbers.sums.batch_norm as i64),
                numbers.sums.batch_norm as f64 * 20e-3
            ),
            "batch_norm.across_ranks = \"local\" needs none, and is another computation (docs/numerics.md)",
        ));
    }
    let optimizer = &config.optimizer;
    let recipe = if optimizer.lr_scale == LrScale::None { USUAL } else { optimizer.lr_base_batch };
    if steps.images != recipe && optimizer.lr_scale == LrScale::None {
        all.push(warning(
            format!(
                "a step has {} images, and the paper's recipe has {USUAL}: optimizer.lr = {} is used as it is",
                grouped(steps.images as i64),
                optimizer.lr
            ),
            format!(
                "set batch.size so that all ranks together have {USUAL}, or optimizer.lr_scale = \"linear\" and \
                 optimizer.lr_warmup_epochs = 5"
            ),
        ));
    }
    all
}

/// Warnings of the machine: memory of the ranks that share it, and space for the run folder.
pub(super) fn of_machine(
    memory: &Memory,
    ranks_here: usize,
    available: Option<f64>,
    disk: f64,
    free: Option<f64>,
) -> Vec<Warning> {
    let mut all = vec![];
    let wanted = memory.all() * ranks_here as f64;
    if let Some(available) = available.filter(|available| wanted > *available) {
        all.push(warning(
            format!("{ranks_here} ranks need about {} here, and {} are available", bytes(wanted), bytes(available)),
            "raise batch.accumulate, or use fewer ranks on each node",
        ));
    }
    if let Some(free) = free.filter(|free| disk > *free) {
        all.push(warning(
            format!("checkpoints need {}, and the disk has {} left", bytes(disk), bytes(free)),
            "choose a run folder on another disk with --run, or lower checkpoint.keep_last",
        ));
    }
    all
}
