//! `iad-launch paper TABLE`: the runs of a table of the paper, and their numbers beside the published ones.

mod compare;
mod cost;
mod file;
mod list;
mod plan;
mod published;
mod results;
mod table;

use std::io::Write as _;

use anyhow::{Context as _, Result};
use comm::Communicator;
use trainer::agreement::agree;
use trainer::run::Ending;

use self::compare::Comparison;
use self::plan::Chosen;
use self::table::{Changes, Table};
use crate::command::Paper;
use crate::jobs::{Job, Wishes, check, folders, train_all};
use crate::ranks::with_session;
use crate::{STOPPED, launch};

/// Lists, trains or shows the rows of a table.
///
/// # Errors
/// A mistake of the user, found before any rank starts; or a failed run.
pub(crate) fn run(command: &Paper) -> Result<u8> {
    if command.dry_run || command.show {
        let (table, chosen) = read(command)?;
        // Under mpirun, one speaks for all.
        if comm::launcher_rank().is_none_or(|rank| rank == 0) {
            let text = if command.dry_run { Some(list::listing(&table, &chosen, command.tflops)?) } else { None };
            text.map_or_else(|| show(command, &table, &chosen), |text| print(&text))?;
        }
        return Ok(0);
    }
    if !comm::started_by_mpi() {
        // All that can be wrong is told once, before ranks are started.
        let (table, chosen) = read(command)?;
        let jobs = open(command, &table, &chosen, &comm::Single)?;
        let ranks = launch::ranks(&command.place)?;
        if launch::needs_mpirun(&command.place, ranks) && !jobs.is_empty() {
            check(&jobs)?;
            return launch::spawn(&command.place, ranks, &folders(&jobs));
        }
        if jobs.is_empty() {
            return finish(command, &table, &chosen);
        }
    }
    let transport = || {
        let (table, chosen) = read(command)?;
        Ok(plan::transport(&table, &chosen)?)
    };
    with_session(&command.place, transport, |session, log| {
        let ranks = session.ranks.as_ref();
        let (table, chosen) = agree(ranks, read(command))?;
        let jobs = agree(ranks, open(command, &table, &chosen, ranks))?;
        agree(ranks, check(&jobs))?;
        if train_all(&jobs, session, &Wishes::default(), log)? == Ending::Stopped {
            return Ok(STOPPED);
        }
        if ranks.is_leader() { finish(command, &table, &chosen) } else { Ok(0) }
    })
}

fn read(command: &Paper) -> Result<(Table, Chosen)> {
    let changes = Changes { runs: &command.runs, seeds: &command.seeds, overrides: &command.overrides };
    let table = Table::read(&file::find(&command.table)?, &changes)?;
    let chosen = plan::choose(&table, &command.only)?;
    Ok((table, chosen))
}

/// The runs that are still to do.
fn open(command: &Paper, table: &Table, chosen: &Chosen, ranks: &dyn Communicator) -> Result<Vec<Job>> {
    let jobs = agree(ranks, plan::jobs(table, chosen, command))?;
    plan::unfinished(jobs, ranks)
}

/// Once all is trained: the comparison, unless this was a part of the work.
fn finish(command: &Paper, table: &Table, chosen: &Chosen) -> Result<u8> {
    if command.job.is_some() || command.teachers {
        print("this part is finished; --show compares what there is\n")?;
    } else {
        show(command, table, chosen)?;
    }
    Ok(0)
}

fn show(command: &Paper, table: &Table, chosen: &Chosen) -> Result<()> {
    let sets: Vec<String> = command.overrides.iter().map(|set| format!("{}={}", set.key, set.value)).collect();
    let changed = (!sets.is_empty()).then(|| format!("Not the table's own runs: all with --set {}.", sets.join(" ")));
    let comparison = Comparison::read(table, chosen, changed)?;
    print(&comparison.text())?;
    if let Some(csv) = &command.csv {
        std::fs::write(csv, comparison.csv()).with_context(|| format!("writing {}", csv.display()))?;
        print(&format!("csv: {}\n", csv.display()))?;
    }
    Ok(())
}

fn print(text: &str) -> Result<()> {
    write!(std::io::stdout(), "{text}").context("writing to the terminal")
}

#[cfg(test)]
mod tests;
