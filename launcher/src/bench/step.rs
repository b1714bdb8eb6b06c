//! `iad-launch bench step CONFIG`: repeats the step of a configuration on one synthetic batch.

use std::io::{Write as _, stdin};
use std::sync::Arc;

use anyhow::Result;
use comm::{Communicator, Session};
use datasets::{UserError, refuse_existing};
use serde::Serialize;
use serde_json::json;
use trainer::bench::{Bench, Timed};
use trainer::config::RunConfig;
use trainer::model::ModelSpec;
use trainer::system::Worker;
use trainer::system::agreement::agree;

use crate::command::BenchStep;
use crate::console::Out;
use crate::start::{self, with_session};

/// Times the step on the given number of ranks.
///
/// # Errors
/// A mistake of the user, or a failed step.
pub(crate) fn run(command: &BenchStep) -> Result<u8> {
    if !comm::started_by_mpi() {
        let ranks = start::ranks(&command.launch)?;
        if start::needs_mpirun(&command.launch, ranks) {
            check(command, ranks)?;
            return start::spawn(&command.launch, ranks, &[]);
        }
    }
    let transport = || Ok(RunConfig::read(&command.of.config, &command.of.overrides)?.comm);
    with_session(&command.launch, transport, |session, _| {
        let config = agree(session.ranks.as_ref(), check(command, session.ranks.world_size()))?;
        time(command, &config, session)?;
        Ok(0)
    })
}

fn check(command: &BenchStep, ranks: usize) -> Result<RunConfig> {
    if ranks > 1 && command.steps.is_none() {
        return Err(UserError::expected("--steps COUNT on several ranks").key("--steps").value("missing").into());
    }
    command.save.as_deref().map_or(Ok(()), refuse_existing)?;
    RunConfig::read(&command.of.config, &command.of.overrides)
}

fn time(command: &BenchStep, config: &RunConfig, session: &Session) -> Result<()> {
    let form = ModelSpec::of(&config.student, command.of.image, command.of.classes);
    let place = Worker { ranks: Arc::clone(&session.ranks), device: session.device, activity: start::activity() };
    let mut bench = Bench::new(config, form, command.of.epoch, &place)?;
    if session.ranks.is_leader() {
        command.save.as_deref().map_or(Ok(()), |file| bench.save(file))?;
        let place = format!("{:?}", session.device);
        tell(&json!({
            "ready": form.to_string(), "device": place, "ranks": session.ranks.world_size(), "threads": session.threads,
            "libraries": session.libraries(), "precision": bench.precision(),
        }))?;
    }
    let mut once = || -> Result<()> {
        match command.evaluate {
            Some(fold) => tell(&json!({ "seconds": bench.evaluate(fold) })),
            None => {
                let timed = bench.run()?;
                let computing = each(session.ranks.as_ref(), timed.computing())?;
                if session.ranks.is_leader() { tell(&Told { timed, computing }) } else { Ok(()) }
            }
        }
    };
    match command.steps {
        Some(steps) => (0..steps).try_for_each(|_| once()),
        None => stdin().lines().try_for_each(|line| line.map_err(Into::into).and_then(|_| once())),
    }
}

/// What the leader tells of a step.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    timed: Timed,
    /// For each rank, the seconds in which it did not wait for sums and other ranks.
    computing: Vec<f64>,
}

/// The numbers of all ranks.
fn each(ranks: &dyn Communicator, number: f64) -> Result<Vec<f64>> {
    let all = ranks.gather(&number.to_string())?;
    Ok(all.iter().map(|text| text.parse()).collect::<Result<_, _>>()?)
}

/// A line for the program that reads the output.
fn tell(value: &impl Serialize) -> Result<()> {
    let mut out = Out;
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}
