//! Which runs of a table to do, in which order.

use anyhow::Result;
use comm::Communicator;
use datasets::UserError;
use trainer::agreement::ensure_same;
use trainer::config::Comm;

use super::results::State;
use super::table::{Row, Table};
use crate::command::{Paper, Part};
use crate::jobs::Job;

/// The rows that a command speaks of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The rows themselves.
    pub(super) rows: Vec<usize>,
    /// They and their teachers, teachers first.
    pub(super) with_teachers: Vec<usize>,
}

/// The rows whose name, method or teacher holds one of the texts; all where there are none.
///
/// # Errors
/// A [`UserError`] where no row does.
pub(super) fn choose(table: &Table, only: &[String]) -> Result<Chosen, UserError> {
    let holds = |row: &Row| {
        let names = [&row.name, &row.method, &row.teacher];
        only.is_empty() || only.iter().any(|text| names.iter().any(|name| name.contains(text)))
    };
    let rows: Vec<usize> = (0..table.rows.len()).filter(|&row| holds(&table.rows[row])).collect();
    if rows.is_empty() {
        let names: Vec<&str> = table.rows.iter().map(|row| row.name.as_str()).collect();
        return Err(UserError::expected("a part of a row's name, method or teacher")
            .file(&table.path)
            .key("--only")
            .value(format!("{only:?}"))
            .hint(format!("the rows are {}", names.join(", "))));
    }
    let mut with_teachers = rows.clone();
    let mut next = 0;
    while let Some(&row) = with_teachers.get(next) {
        for &teacher in &table.rows[row].teachers {
            if !with_teachers.contains(&teacher) {
                with_teachers.push(teacher);
            }
        }
        next += 1;
    }
    with_teachers.sort_by_key(|&row| (table.depth(row), row));
    Ok(Chosen { rows, with_teachers })
}

/// The transport of all runs, which share their ranks.
///
/// # Errors
/// A [`UserError`] where two differ.
pub(super) fn transport(table: &Table, chosen: &Chosen) -> Result<Comm, UserError> {
    let all: Vec<&Job> =
        chosen.with_teachers.iter().flat_map(|&row| &table.rows[row].runs).map(|run| &run.job).collect();
    let way = |job: &Job| (job.config.comm.backend, job.config.comm.share_gpus);
    match all.iter().find(|job| way(job) != way(all[0])) {
        None => Ok(all[0].config.comm.clone()),
        Some(other) => Err(UserError::expected("the same for all runs of a table, which share their ranks")
            .file(&table.path)
            .key("comm.backend and comm.share_gpus")
            .value(format!("{:?} for {} and {:?} for another", way(other), other.folder.name(), way(all[0])))
            .hint("set them for all: --set comm.backend=auto --set comm.share_gpus=false")),
    }
}

/// The runs to do, teachers first: of every row and seed, or this job's part of them.
///
/// # Errors
/// A [`UserError`] where a part needs teachers that are not there.
pub(super) fn jobs(table: &Table, chosen: &Chosen, command: &Paper) -> Result<Vec<Job>> {
    let teaches = |row: usize| chosen.with_teachers.iter().any(|&other| table.rows[other].teachers.contains(&row));
    let wanted = |row: &usize| match (command.teachers, command.job) {
        (true, _) => teaches(*row),
        (false, None) => true,
        (false, Some(_)) => !teaches(*row),
    };
    let rows = chosen.with_teachers.iter().copied().filter(wanted);
    let runs: Vec<(usize, usize)> =
        rows.flat_map(|row| (0..table.rows[row].runs.len()).map(move |run| (row, run))).collect();
    let mut jobs = vec![];
    for (index, (row, run)) in runs.into_iter().enumerate() {
        if command.job.is_some_and(|part| !part.takes(index)) {
            continue;
        }
        if let Some(part) = command.job {
            check_teachers(table, row, run, part)?;
        }
        jobs.push(table.rows[row].runs[run].job.clone());
    }
    Ok(jobs)
}

/// A part of the work is done beside the others: what its runs learn from has to be there before.
fn check_teachers(table: &Table, row: usize, run: usize, part: Part) -> Result<()> {
    for &teacher in &table.rows[row].teachers {
        let made = &table.rows[teacher].runs[run];
        let state = State::of(&made.job)?;
        if state != State::Finished {
            return Err(UserError::expected("finished teachers for every run of a job's part")
                .file(&made.job.folder.path)
                .key(format!("--job {part}: the teacher of {}", table.rows[row].runs[run].name))
                .value(state.text(made.job.config.epochs))
                .hint("run the teachers first: the same command with --teachers")
                .into());
        }
    }
    Ok(())
}

/// Those of `jobs` that are not finished, by the leader's view of the file system; every rank must ask for the same ones.
///
/// # Errors
/// The ranks read different tables or run files; or a failure of the transport.
pub(super) fn unfinished(jobs: Vec<Job>, ranks: &dyn Communicator) -> Result<Vec<Job>> {
    let asked = jobs.iter().map(|job| (job.folder.path.display().to_string(), job.config.hash()));
    ensure_same(ranks, &comm::host_name(), &asked.collect())?;
    let mut open = String::new();
    if ranks.is_leader() {
        // What cannot be read is not finished; the check of its folder says what is wrong.
        open = jobs.iter().map(|job| if matches!(State::of(job), Ok(State::Finished)) { '-' } else { 'x' }).collect();
    }
    let open = ranks.gather(&open)?.swap_remove(0);
    Ok(jobs.into_iter().zip(open.chars()).filter(|(_, open)| *open == 'x').map(|(job, _)| job).collect())
}
