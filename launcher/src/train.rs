//! `iad-launch CONFIG`: check everything, start the ranks, train on each.

use std::path::PathBuf;

use anyhow::Result;
use datasets::UserError;
use trainer::agreement::agree;
use trainer::config::{RunConfig, Teacher};
use trainer::folder::RunFolder;
use trainer::prepare::find_teacher;
use trainer::run::Ending;

use crate::command::Train;
use crate::jobs::{Job, Wishes, check, folders, train_all};
use crate::ranks::with_session;
use crate::{STOPPED, launch};

/// Trains, on as many ranks as asked for.
///
/// # Errors
/// A mistake of the user, found before any rank starts; or a failed run.
pub(crate) fn run(command: &Train) -> Result<u8> {
    if !comm::started_by_mpi() {
        // All that can be wrong is told once, before ranks are started.
        let jobs = plan(command)?;
        let ranks = launch::ranks(&command.place)?;
        if launch::needs_mpirun(&command.place, ranks) {
            check(&jobs)?;
            return launch::spawn(&command.place, ranks, &folders(&jobs));
        }
    }
    let transport = || Ok(RunConfig::read(&command.config, &command.overrides)?.comm);
    with_session(&command.place, transport, |session, log| {
        let jobs = agree(session.ranks.as_ref(), plan(command).and_then(|jobs| check(&jobs).map(|()| jobs)))?;
        let wishes = Wishes { stop_after_steps: command.stop_after_steps, trace: command.trace };
        match train_all(&jobs, session, &wishes, log)? {
            Ending::Finished => Ok(0),
            Ending::Stopped => Ok(STOPPED),
        }
    })
}

/// The runs to do, teachers first. Without `--with-teachers` it is one.
fn plan(command: &Train) -> Result<Vec<Job>> {
    let config = RunConfig::read(&command.config, &command.overrides)?;
    let folder = command.run.clone().unwrap_or_else(|| RunFolder::default_for(&command.config));
    let mut jobs = vec![];
    if command.with_teachers {
        add_teachers(&config, &mut jobs, &mut vec![command.config.clone()])?;
    }
    jobs.push(Job { config, folder: RunFolder::at(&folder) });
    Ok(jobs)
}

/// Adds the runs of missing teachers, theirs before them. `path` are the configurations that led here.
fn add_teachers(config: &RunConfig, jobs: &mut Vec<Job>, path: &mut Vec<PathBuf>) -> Result<()> {
    for (name, teacher) in &config.teachers {
        let Teacher { checkpoint, config: Some(file) } = teacher else { continue };
        if find_teacher(name, teacher).is_ok() || jobs.iter().any(|job| job.folder.path == *checkpoint) {
            continue;
        }
        let error = |expected: &str| UserError::expected(expected).file(file).key(format!("teachers.{name}.config"));
        if path.contains(file) {
            return Err(error("a configuration that does not need itself as a teacher").into());
        }
        if checkpoint.extension().is_some_and(|extension| extension == "safetensors") {
            return Err(error("teachers.NAME.checkpoint to be a run folder, for --with-teachers to train it there")
                .value(checkpoint.display())
                .into());
        }
        let teacher = RunConfig::read(file, &[])?;
        path.push(file.clone());
        add_teachers(&teacher, jobs, path)?;
        path.pop();
        jobs.push(Job { config: teacher, folder: RunFolder::at(checkpoint) });
    }
    Ok(())
}
