//! `iad-launch paper TABLE`: the runs of a table of the paper, and their numbers beside the published ones.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use comm::Communicator;
use trainer::run::Ending;
use trainer::system::agreement::agree;

use super::compare::Comparison;
use super::plan::{self, Chosen};
use super::table::{Changes, PaperTable};
use super::{file, list};
use crate::command::Paper;
use crate::console::Out;
use crate::exit::STOPPED;
use crate::start::{self, with_session};
use crate::train::{Job, TrainOptions, check, folders, train_all};

/// Lists, trains or shows the rows of a table.
///
/// # Errors
/// A mistake of the user, found before any rank starts; or a failed run.
pub(crate) fn run(command: &Paper) -> Result<u8> {
    if command.dry_run || command.show {
        let (table, chosen) = read(command)?;
        // Under mpirun, rank 0 speaks for all.
        if comm::launcher_rank().is_none_or(|rank| rank == 0) {
            let text = if command.dry_run { Some(list::listing(&table, &chosen, command.tflops)?) } else { None };
            text.map_or_else(|| show(command, &table, &chosen), |text| print(&text))?;
        }
        return Ok(0);
    }
    if !comm::started_by_mpi() {
        // All mistakes are reported once, before ranks start.
        let (table, chosen) = read(command)?;
        let jobs = open(command, &table, &chosen, &comm::Single)?;
        let ranks = start::ranks(&command.launch)?;
        if start::needs_mpirun(&command.launch, ranks) && !jobs.is_empty() {
            check(&jobs)?;
            return start::spawn(&command.launch, ranks, &folders(&jobs));
        }
        if jobs.is_empty() {
            return finish(command, &table, &chosen);
        }
    }
    let transport = || {
        let (table, chosen) = read(command)?;
        Ok(plan::transport(&table, &chosen)?)
    };
    with_session(&command.launch, transport, |session, log| {
        let ranks = session.ranks.as_ref();
        let (table, chosen) = agree(ranks, read(command))?;
        let jobs = agree(ranks, open(command, &table, &chosen, ranks))?;
        agree(ranks, check(&jobs))?;
        if train_all(&jobs, session, &TrainOptions::default(), log)? == Ending::Stopped {
            return Ok(STOPPED);
        }
        if ranks.is_leader() { finish(command, &table, &chosen) } else { Ok(0) }
    })
}

fn read(command: &Paper) -> Result<(PaperTable, Chosen)> {
    let changes = Changes { runs: &command.runs, seeds: &command.seeds, overrides: &command.overrides };
    let table = PaperTable::read(&file::find(&command.table)?, &changes)?;
    let chosen = plan::choose(&table, &command.only)?;
    Ok((table, chosen))
}

/// The runs that are left.
fn open(command: &Paper, table: &PaperTable, chosen: &Chosen, ranks: &dyn Communicator) -> Result<Vec<Job>> {
    let jobs = agree(ranks, plan::jobs(table, chosen, command))?;
    plan::unfinished(jobs, ranks)
}

/// The comparison once all runs are trained, unless this was a part of the work.
fn finish(command: &Paper, table: &PaperTable, chosen: &Chosen) -> Result<u8> {
    if command.job.is_some() || command.teachers {
        print("this part is finished; --show compares what there is\n")?;
    } else {
        show(command, table, chosen)?;
    }
    Ok(0)
}

fn show(command: &Paper, table: &PaperTable, chosen: &Chosen) -> Result<()> {
    let sets: Vec<String> = command.overrides.iter().map(|set| format!("{}={}", set.key, set.value)).collect();
    let changed = (!sets.is_empty()).then(|| format!("Not the table's own runs: all with --set {}.", sets.join(" ")));
    let comparison = Comparison::read(table, chosen, changed)?;
    print(&comparison.text())?;
    if let Some(csv) = &command.csv {
        let folder = csv.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
        std::fs::write(csv, comparison.csv()).with_context(|| format!("writing {}", csv.display()))?;
        print(&format!("csv: {}\n", csv.display()))?;
    }
    Ok(())
}

fn print(text: &str) -> Result<()> {
    write!(Out, "{text}").context("writing to the terminal")
}

#[cfg(test)]
mod tests;
