//! `iad-launch bench save CONFIG`: what a save costs the steps around it.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use comm::Session;
use datasets::refuse_existing;
use serde::Serialize;
use trainer::bench::Bench;
use trainer::bench::saves::SaveTimes;
use trainer::config::RunConfig;
use trainer::model::ModelSpec;
use trainer::run::folder::RunFolder;
use trainer::system::Worker;
use trainer::system::agreement::agree;

use super::output::{check_new, print, write_json};
use crate::command::BenchSave;
use crate::console::{bytes, percent};
use crate::start::{self, with_session};

/// All results.
#[derive(Debug, Serialize)]
struct Measured {
    form: String,
    images_per_step: usize,
    ranks: usize,
    device: String,
    precision: String,
    threads: usize,
    /// The step without a save.
    step_milliseconds: f64,
    /// What the steps wait for: the comparison of the ranks and the copy.
    held_milliseconds: f64,
    /// That as a part of the steps from one save to the next.
    held: f64,
    /// The same of the whole time of the steps with a save, over that without one, less 1: also what the write takes from
    /// steps beside it, and the noise of the machine.
    slower: f64,
    /// The time of the leader's thread.
    write_milliseconds: f64,
    times: SaveTimes,
}

/// Prints a few lines.
///
/// # Errors
/// A mistake of the user; a step or a save that fails.
pub(crate) fn run(command: &BenchSave) -> Result<u8> {
    if !comm::started_by_mpi() {
        let ranks = start::ranks(&command.launch)?;
        if start::needs_mpirun(&command.launch, ranks) {
            check(command)?;
            return start::spawn(&command.launch, ranks, &[]);
        }
    }
    let transport = || Ok(RunConfig::read(&command.of.config, &command.of.overrides)?.comm);
    with_session(&command.launch, transport, |session, _| {
        let ranks = session.ranks.as_ref();
        let config = agree(ranks, check(command))?;
        let folder = RunFolder::at(&command.to);
        // All have checked before one makes it.
        let made = || fs::create_dir_all(command.to.join("checkpoints")).context(command.to.display().to_string());
        agree(ranks, if ranks.is_leader() { made() } else { Ok(()) })?;
        let measured = measure(command, &config, session, &folder);
        if ranks.is_leader() {
            fs::remove_dir_all(&command.to).with_context(|| command.to.display().to_string())?;
            let measured = measured?;
            show(&measured)?;
            command.json.as_ref().map_or(Ok(()), |file| write_json(file, &measured))?;
        } else {
            measured?;
        }
        Ok(0)
    })
}

fn check(command: &BenchSave) -> Result<RunConfig> {
    refuse_existing(&command.to).map_err(|error| error.key("--to"))?;
    check_new(command.json.as_deref(), "--json")?;
    RunConfig::read(&command.of.config, &command.of.overrides)
}

fn measure(command: &BenchSave, config: &RunConfig, session: &Session, folder: &RunFolder) -> Result<Measured> {
    let form = ModelSpec::of(&config.student, command.of.image, command.of.classes);
    let place = Worker { ranks: Arc::clone(&session.ranks), device: session.device, activity: start::activity() };
    let mut bench = Bench::new(config, form, command.of.epoch, &place)?;
    let times = bench.saves(config, &place, folder, (command.every as usize, command.rounds as usize))?;
    let ranks = session.ranks.world_size();
    let (without, with) = (median(&times.without), median(&times.with));
    let held = median(&times.comparisons) + median(&times.copies);
    Ok(Measured {
        form: form.to_string(),
        images_per_step: config.batch.global(ranks),
        ranks,
        device: format!("{:?}", session.device),
        precision: bench.precision(),
        threads: session.threads,
        step_milliseconds: 1e3 * without / times.every as f64,
        held_milliseconds: 1e3 * held,
        held: held / without,
        slower: with / without - 1.0,
        write_milliseconds: 1e3 * median(&times.writes),
        times,
    })
}

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn show(measured: &Measured) -> Result<()> {
    let Measured { form, images_per_step, ranks, device, threads, times, .. } = measured;
    let SaveTimes { every, bytes: size, .. } = times;
    let line = |name: &str, seconds: f64| format!("{name:<28} {:>10.1} ms\n", 1e3 * seconds);
    let head = format!(
        "{form}, {images_per_step} images a step, {ranks} ranks, {device}, {threads} threads; checkpoints of {}, one every \
         {every} steps\n",
        bytes(*size as f64)
    );
    let lines = [
        line("step", measured.step_milliseconds / 1e3),
        line("comparison of the ranks", median(&times.comparisons)),
        line("copy", median(&times.copies)),
        line("write, beside the steps", median(&times.writes)),
        line("wait for it", median(&times.waits)),
    ];
    let shares = format!(
        "the steps wait for {} of their time; with a save they take {:+.1} % of the time without one, noise included\n",
        percent(measured.held),
        100.0 * measured.slower
    );
    print(&format!("{head}{}{shares}", lines.concat()))
}
