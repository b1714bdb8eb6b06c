//! `iad-launch CONFIG`: check everything, start the ranks, train on each.

use std::path::{Path, PathBuf};

use anyhow::Result;
use datasets::UserError;
use trainer::config::{Override, RunConfig, Teacher};
use trainer::run::Ending;
use trainer::run::folder::RunFolder;
use trainer::run::prepare::find_teacher;
use trainer::system::agreement::agree;

use super::announce::announce;
use super::jobs::{Job, TrainOptions, check, folders, train_all};
use super::seeds::{self, Students};
use crate::command::Train;
use crate::console::tell;
use crate::exit::STOPPED;
use crate::report;
use crate::start::{self, with_session};

/// Trains, on as many ranks as asked for.
///
/// # Errors
/// A mistake of the user, found before any rank starts; or a failed run.
pub(crate) fn run(command: &Train) -> Result<u8> {
    if !comm::started_by_mpi() {
        // All that can be wrong is told once, before ranks are started.
        let (jobs, _) = plan(command)?;
        let ranks = start::ranks(&command.launch)?;
        if start::needs_mpirun(&command.launch, ranks) {
            check(&jobs)?;
            return start::spawn(&command.launch, ranks, &folders(&jobs));
        }
    }
    let transport = || Ok(RunConfig::read(&command.config, &command.overrides)?.comm);
    with_session(&command.launch, transport, |session, log| {
        let planned = plan(command).and_then(|(jobs, students)| check(&jobs).map(|()| (jobs, students)));
        let (jobs, students) = agree(session.ranks.as_ref(), planned)?;
        if session.ranks.is_leader() {
            announce(&jobs, students.count, &command.overrides);
            if let (Some(more), Some(job)) = (command.more_epochs, jobs.last()) {
                tell(&more_epochs_text(more, job)?);
            }
        }
        let (stop_after_steps, trace) = (command.stop_after_steps, command.trace);
        let options = TrainOptions { students: students.count, stop_after_steps, trace };
        if train_all(&jobs, session, &options, log)? == Ending::Stopped {
            return Ok(STOPPED);
        }
        match &students.together {
            Some(folder) if session.ranks.is_leader() => report::show_results(folder).map(|()| 0),
            _ => Ok(0),
        }
    })
}

/// The runs to do, teachers first, and what is known of the students among them. With `--no-teachers` there are only these.
fn plan(command: &Train) -> Result<(Vec<Job>, Students)> {
    let config = match command.more_epochs {
        Some(more) => longer(&command.config, &command.overrides, more)?,
        None => RunConfig::read(&command.config, &command.overrides)?,
    };
    let folder = command.run.clone().unwrap_or_else(|| RunFolder::default_for(&command.config));
    let mut jobs = vec![];
    if !command.no_teachers {
        add_teachers(&config, &mut jobs, &mut vec![command.config.clone()])?;
    }
    let students = seeds::add_students(config, &folder, &command.seeds, &mut jobs)?;
    Ok((jobs, students))
}

/// The configuration of the run in `folder`, with `more` epochs if it has finished those it has. So the command can be
/// repeated after a stop without adding them again.
fn longer(folder: &Path, overrides: &[Override], more: u64) -> Result<RunConfig> {
    if !folder.join("run.toml").is_file() {
        return Err(UserError::expected("a run folder in the place of CONFIG")
            .file(folder)
            .key("--more-epochs")
            .value(more)
            .hint("name the folder of the run, as in `iad-launch runs/quickstart --more-epochs 10`")
            .into());
    }
    let config = RunConfig::read(folder, overrides)?;
    if !RunFolder::at(folder).is_finished(&config) {
        return Ok(config);
    }
    let epochs = Override { key: "epochs".into(), value: config.epochs.saturating_add(more).to_string() };
    RunConfig::read(folder, &[overrides, &[epochs]].concat())
}

/// What `--more-epochs` does to the run of `job`.
fn more_epochs_text(more: u64, job: &Job) -> Result<String> {
    let (folder, epochs) = (job.folder.path.display(), job.config.epochs);
    Ok(if job.folder.config()?.epochs == epochs {
        format!(
            "{folder} has not finished its {epochs} epochs: it is resumed, and --more-epochs {more} adds nothing to it"
        )
    } else {
        format!("{folder} is trained to {epochs} epochs, {more} more than before")
    })
}

/// Adds the runs of missing teachers, theirs before them. `path` are the configurations that led here.
fn add_teachers(config: &RunConfig, jobs: &mut Vec<Job>, path: &mut Vec<PathBuf>) -> Result<()> {
    for (name, teacher) in &config.teachers {
        let Teacher { checkpoint, config: Some(file), .. } = teacher else { continue };
        let found = find_teacher(name, teacher).is_ok();
        // `check` refuses a teacher that nothing makes, after the images: one message for the first thing to do.
        if !found && !file.is_file() {
            continue;
        }
        // Nothing says how a teacher was made but its run folder: it is compared where changes are asked for.
        if found && (teacher.set.is_empty() || checkpoint.is_file()) {
            continue;
        }
        let error = |expected: &str| UserError::expected(expected).file(file).key(format!("teachers.{name}.config"));
        if path.contains(file) {
            return Err(error("a configuration that does not need itself as a teacher").into());
        }
        if checkpoint.extension().is_some_and(|extension| extension == "safetensors") {
            return Err(error("teachers.NAME.checkpoint to be a run folder, for the teacher to be trained there")
                .value(checkpoint.display())
                .into());
        }
        let Some(own) = RunConfig::of_teacher(teacher)? else { continue };
        let folder = RunFolder::at(checkpoint);
        folder.check(&own).map_err(|error| elsewhere(error, name))?;
        if found || jobs.iter().any(|job| job.folder.path == *checkpoint) {
            continue;
        }
        path.push(file.clone());
        add_teachers(&own, jobs, path)?;
        path.pop();
        jobs.push(Job { config: own, folder });
    }
    Ok(())
}

/// The error of a teacher's folder that holds another run: the way out is a key, not --run.
fn elsewhere(error: anyhow::Error, name: &str) -> anyhow::Error {
    match error.downcast::<UserError>() {
        Ok(error) => {
            let hint = format!(
                "the teacher {name} would be trained there: choose another folder with --set \
                 teachers.{name}.checkpoint=runs/OTHER, or move this one away"
            );
            error.hint(hint).into()
        }
        Err(error) => error,
    }
}
