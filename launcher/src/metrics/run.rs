//! The command: read the folder, write the form that was asked for.

use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use toml::Table;
use trainer::run::folder::RunFolder;
use trainer::system::files::write_atomically;

use super::histograms::of_alpha;
use super::images::pictures;
use super::scalars::{csv, scalars};
use super::tensorboard;
use crate::command::Metrics;
use crate::console::{Out, tell};
use crate::report::RecordedRun;

/// Prints or writes the numbers of a run.
///
/// # Errors
/// The folder is no run or is damaged; a file cannot be written.
pub(crate) fn run(command: &Metrics) -> Result<()> {
    let run = RunFolder::at(&command.run);
    let config = run.config()?;
    let recorded = RecordedRun::read(&command.run)?;
    let numbers = scalars(&recorded);
    if let Some(folder) = &command.tensorboard {
        std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
        let bytes =
            tensorboard::file(began(&recorded), &numbers, &of_alpha(&recorded, &config), &pictures(&command.run));
        let file = folder.join(tensorboard::NAME);
        write_atomically(&file, &bytes)?;
        tell(&format!("written {}; `tensorboard --logdir {}` shows it", file.display(), folder.display()));
    }
    match &command.csv {
        Some(file) => {
            write_atomically(file, csv(&numbers).as_bytes())?;
            tell(&format!("written {}", file.display()));
            Ok(())
        }
        None if command.tensorboard.is_some() => Ok(()),
        None => write!(Out, "{}", csv(&numbers)).context("writing to the terminal"),
    }
}

/// When the run was first started, in seconds since 1970; 0 where the folder does not say.
fn began(run: &RecordedRun) -> f64 {
    let environment: Option<Table> = run.environment.as_ref().and_then(|text| text.parse().ok());
    let started = environment.as_ref().and_then(|table| table.get("session")?.get(0)?.get("started")?.as_str());
    let time: Option<SystemTime> = started.and_then(|text| humantime::parse_rfc3339(text).ok());
    time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |since: Duration| since.as_secs_f64())
}
