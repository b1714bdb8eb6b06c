//! `iad-launch bench step CONFIG`: the step that a configuration describes, again and again on one made-up batch.

use std::io::{Write as _, stdin, stdout};
use std::sync::Arc;

use anyhow::Result;
use comm::Session;
use datasets::{UserError, refuse_existing};
use serde::Serialize;
use serde_json::json;
use trainer::agreement::agree;
use trainer::bench::Bench;
use trainer::config::RunConfig;
use trainer::model::Form;
use trainer::run::Place;

use crate::command::BenchStep;
use crate::launch;
use crate::ranks::with_session;

pub(super) fn run(command: &BenchStep) -> Result<u8> {
    if !comm::started_by_mpi() {
        let ranks = launch::ranks(&command.place)?;
        if launch::needs_mpirun(&command.place, ranks) {
            check(command, ranks)?;
            return launch::spawn(&command.place, ranks, &[]);
        }
    }
    let transport = || Ok(RunConfig::read(&command.of.config, &command.of.overrides)?.comm);
    with_session(&command.place, transport, |session, _| {
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
    let form = Form { architecture: config.student.architecture, image: command.of.image, classes: command.of.classes };
    let place = Place { ranks: Arc::clone(&session.ranks), device: session.device };
    let mut bench = Bench::new(config, form, command.of.epoch, &place)?;
    if session.ranks.is_leader() {
        command.save.as_deref().map_or(Ok(()), |file| bench.save(file))?;
        let place = format!("{:?}", session.device);
        tell(&json!({
            "ready": form.to_string(), "device": place, "ranks": session.ranks.world_size(), "threads": session.threads,
            "libraries": session.libraries(),
        }))?;
    }
    let mut once = || -> Result<()> {
        match command.evaluate {
            Some(fold) => tell(&json!({ "seconds": bench.evaluate(fold) })),
            None => {
                let timed = bench.run()?;
                if session.ranks.is_leader() { tell(&timed) } else { Ok(()) }
            }
        }
    };
    match command.steps {
        Some(steps) => (0..steps).try_for_each(|_| once()),
        None => stdin().lines().try_for_each(|line| line.map_err(Into::into).and_then(|_| once())),
    }
}

/// A line for the program that listens.
fn tell(value: &impl Serialize) -> Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}
