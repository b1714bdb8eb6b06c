//! The runs of a table that a command trains, in their order.

use anyhow::Result;
use comm::Communicator;
use datasets::UserError;
use trainer::config::Comm;
use trainer::system::agreement::ensure_same;

use super::results::RunState;
use super::table::{PaperTable, Row};
use crate::command::{Paper, Part};
use crate::train::Job;

/// The rows of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The chosen rows.
    pub(super) rows: Vec<usize>,
    /// The chosen rows and their teachers, teachers first.
    pub(super) with_teachers: Vec<usize>,
}

/// The rows whose name, method or teacher equals one of the texts, or contains it if none equals it, so that `IAD-I` does not
/// select `IAD-II`; all rows without texts.
///
/// # Errors
/// A [`UserError`] if no row matches.
pub(super) fn choose(table: &PaperTable, only: &[String]) -> Result<Chosen, UserError> {
    let names = |row: &Row| [row.name.clone(), row.method.clone(), row.teacher.clone()];
    let holds = |row: &Row, text: &String| {
        let exact = table.rows.iter().flat_map(names).any(|name| name == *text);
        names(row).iter().any(|name| if exact { name == text } else { name.contains(text) })
    };
    let chosen = |row: &Row| only.is_empty() || only.iter().any(|text| holds(row, text));
    let rows: Vec<usize> = (0..table.rows.len()).filter(|&row| chosen(&table.rows[row])).collect();
    if rows.is_empty() {
        let known: Vec<&str> = table.rows.iter().map(|row| row.name.as_str()).collect();
        return Err(UserError::expected("a part of a row's name, method or teacher")
            .file(&table.path)
            .key("--only")
            .value(format!("{only:?}"))
            .hint(format!("the rows are {}", known.join(", ")))
            .did_you_mean(only.first().map_or("", String::as_str), known));
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

/// The transport of all runs; they share their ranks.
///
/// # Errors
/// A [`UserError`] if two differ.
pub(super) fn transport(table: &PaperTable, chosen: &Chosen) -> Result<Comm, UserError> {
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

/// The runs to train, teachers first: of every row and seed, or this job's part of them.
///
/// # Errors
/// A [`UserError`] if a part needs teachers that are missing.
pub(super) fn jobs(table: &PaperTable, chosen: &Chosen, command: &Paper) -> Result<Vec<Job>> {
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

/// Parts of the work run at the same time, so the teachers of their runs must exist before.
fn check_teachers(table: &PaperTable, row: usize, run: usize, part: Part) -> Result<()> {
    for &teacher in &table.rows[row].teachers {
        let made = &table.rows[teacher].runs[run];
        let state = RunState::of(&made.job)?;
        if state != RunState::Finished {
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

/// The unfinished runs of `jobs`, in the leader's view of the file system. Every rank must ask for the same ones.
///
/// # Errors
/// The ranks read different tables or run files; or a failure of the transport.
pub(super) fn unfinished(jobs: Vec<Job>, ranks: &dyn Communicator) -> Result<Vec<Job>> {
    let asked = jobs.iter().map(|job| (job.folder.path.display().to_string(), job.config.hash()));
    ensure_same(ranks, &comm::host_name(), &asked.collect())?;
    let mut open = String::new();
    if ranks.is_leader() {
        // An unreadable run is not finished; the check of its folder gives the reason.
        open = jobs
            .iter()
            .map(|job| if matches!(RunState::of(job), Ok(RunState::Finished)) { '-' } else { 'x' })
            .collect();
    }
    let open = ranks.gather(&open)?.swap_remove(0);
    Ok(jobs.into_iter().zip(open.chars()).filter(|(_, open)| *open == 'x').map(|(job, _)| job).collect())
}
