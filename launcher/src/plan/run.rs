//! The command: count, measure, print.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use trainer::config::RunConfig;
use trainer::run::folder::RunFolder;

use super::images::Images;
use super::launches::Counted;
use super::numbers::Numbers;
use super::planned::{OverSeeds, Planned};
use super::warn::{self, Warning, warnings};
use super::{show, time};
use crate::command::Plan;
use crate::console::Out;
use crate::machine::{available_memory, free_space};
use crate::start;
use crate::train::seeds_of;

/// Prints what the run of a configuration would need. Nothing is trained and no file is written.
///
/// # Errors
/// A mistake of the user.
pub(crate) fn run(command: &Plan) -> Result<()> {
    // Under an MPI launcher, one process speaks for all.
    if comm::launcher_rank().is_some_and(|rank| rank > 0) {
        return Ok(());
    }
    let plan = plan(command)?;
    let text = if command.json { serde_json::to_string_pretty(&plan)? + "\n" } else { show::text(&plan) };
    write!(Out, "{text}").context("writing to the terminal")
}

/// How long the run would take, or the runs of all seeds.
///
/// # Errors
/// A mistake of the user.
pub(crate) fn seconds(command: &Plan) -> Result<f64> {
    Ok(plan(command)?.seconds())
}

fn plan(command: &Plan) -> Result<Planned> {
    let config = RunConfig::read(&command.config, &command.overrides)?;
    let seeds = seeds_of(&config, &command.seeds)?;
    let runs = seeds.len().max(1) as f64;
    let ranks = command.ranks.map(usize::from).or_else(start::announced_ranks).unwrap_or(1);
    config.check_extra_count(ranks)?;
    config.check_grad_align_on(ranks)?;
    let images = Images::of(&config, command)?;
    let numbers = Numbers::count(&config, &images, ranks)?;
    let mut warnings = warnings(&config, &images, &numbers, ranks);
    let disk = free_space(&RunFolder::default_for(&command.config));
    let (time, memory, precision, kernels) = match &command.gpu {
        Some(gpu) => {
            let memory = numbers.memory(&config, None);
            warnings.extend(warn::of_machine(&memory, 0, None, runs * numbers.disk, disk));
            let launched = Counted::of(&config, &numbers, ranks)?;
            let time = time::on_gpu(&config, &numbers, &launched, ranks, gpu)?;
            (time, memory, config.precision.in_words(true), launched.last())
        }
        None => {
            let found = time::measure(&config, &numbers);
            let memory = numbers.memory(&config, Some(found.bytes_per_image));
            let available = available_memory().filter(|_| !found.gpu);
            warnings.extend(warn::of_machine(&memory, ranks, available, runs * numbers.disk, disk));
            warnings.extend(found.warning.map(|text| Warning {
                text: text.into(),
                next: "set precision.dtype = \"float32\" for this machine".into(),
            }));
            (time::by_measurement(&config, &numbers, ranks, &found), memory, found.precision, None)
        }
    };
    let over_seeds =
        (!seeds.is_empty()).then(|| OverSeeds { seeds, seconds: runs * time.all(), disk_bytes: runs * numbers.disk });
    let operations = |multiply_adds: u128| 2.0 * multiply_adds as f64;
    Ok(Planned {
        config: command.config.display().to_string(),
        config_sha256: config.hash(),
        ranks,
        network: numbers.form.to_string(),
        precision,
        parameters: numbers.parameters,
        images,
        training_operations: operations(numbers.cost.training),
        selection_operations: operations(numbers.cost.selection),
        evaluation_operations: operations(numbers.cost.evaluation),
        steps: numbers.steps,
        work: numbers.work,
        sums: numbers.sums,
        kernels,
        memory,
        time,
        disk_bytes: numbers.disk,
        over_seeds,
        warnings,
        resolved: config,
    })
}
