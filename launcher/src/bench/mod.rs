//! `iad-launch bench`: what this machine does, and what others would do.

mod comm;
mod project;
mod scaling;
mod step;

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use datasets::refuse_existing;
use serde::Serialize;
use trainer::checkpoint::write_atomically;

use crate::command::Bench;

/// Runs a benchmark.
///
/// # Errors
/// A mistake of the user, or a failed measurement.
pub(crate) fn run(command: &Bench) -> Result<u8> {
    match command {
        Bench::Step(step) => step::run(step),
        Bench::Comm(sums) => comm::run(sums),
        Bench::Scaling(scaling) => scaling::run(scaling).map(|()| 0),
        Bench::Project(project) => project::run(project).map(|()| 0),
    }
}

fn print(text: &str) -> Result<()> {
    write!(std::io::stdout(), "{text}").context("writing to the terminal")
}

/// Refuses a result that is already there, before anything is measured.
fn check_new(file: Option<&Path>, key: &str) -> Result<()> {
    Ok(file.map_or(Ok(()), |file| refuse_existing(file).map_err(|error| error.key(key)))?)
}

fn write_json(file: &Path, measured: &impl Serialize) -> Result<()> {
    write_atomically(file, format!("{}\n", serde_json::to_string_pretty(measured)?).as_bytes())?;
    print(&format!("written to {}\n", file.display()))
}
