//! `iad-launch replay RUN_OR_STEP`: take a step again that went wrong.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use comm::Session;
use datasets::UserError;
use trainer::run::folder::RunFolder;
use trainer::run::prepare::prepare;
use trainer::run::replay::{Kept, replay};
use trainer::run::{RunContext, Stop};
use trainer::system::Worker;
use trainer::system::agreement::agree;

use crate::command::Replay;
use crate::console::Out;
use crate::start::{self, activity, stop_flag, with_session};

/// Repeats the step on as many ranks as asked for. The exit code is 0 where it goes wrong again, and 1 where it does not.
///
/// # Errors
/// A mistake of the user, or a failure of the ranks.
pub(crate) fn run_again(command: &Replay) -> Result<u8> {
    if !comm::started_by_mpi() {
        let (folder, file) = find(&command.step)?;
        Kept::read(&file)?.config(&folder)?;
        let ranks = start::ranks(&command.launch)?;
        if start::needs_mpirun(&command.launch, ranks) {
            return start::spawn(&command.launch, ranks, &[]);
        }
    }
    let transport = || {
        let (folder, file) = find(&command.step)?;
        Ok(Kept::read(&file)?.config(&folder)?.comm)
    };
    // The logs of the run are left alone.
    with_session(&command.launch, transport, |session, _| repeat(&command.step, session))
}

fn repeat(step: &Path, session: &Session) -> Result<u8> {
    let ranks = session.ranks.as_ref();
    let read = || {
        let (folder, file) = find(step)?;
        let kept = Kept::read(&file)?;
        let config = kept.config(&folder)?;
        let prepared = prepare(&config, false)?;
        Ok((folder, kept, config, prepared))
    };
    let (folder, kept, config, prepared) = agree(ranks, read())?;
    agree(ranks, config.comm.check_transport(ranks).map_err(Into::into))?;
    let place = Worker { ranks: Arc::clone(&session.ranks), device: session.device, activity: activity() };
    let stop = Stop { requested: &stop_flag(), after_steps: None };
    let (config, prepared) = (&config, &prepared);
    let context = RunContext { config, prepared, folder: &folder, place: &place, stop, trace: None };
    let found = replay(&context, &kept)?;
    if ranks.is_leader() {
        let verdict = if found.reproduced { "reproduced" } else { "not reproduced" };
        let text = found.lines.join("\n");
        writeln!(Out, "{text}\n{verdict}").context("writing what was found")?;
    }
    Ok(u8::from(!found.reproduced))
}

/// The run folder and the file of a step: the one that is named, or the newest one of a run.
fn find(step: &Path) -> Result<(RunFolder, PathBuf)> {
    let error = |expected: &str| UserError::expected(expected).file(step);
    if step.is_dir() {
        let folder = RunFolder::at(step);
        let newest = folder.all_offending().into_iter().next();
        let newest = newest.ok_or_else(|| {
            let error = error("a run folder that keeps a step, in its folder `offending`");
            error.hint("a step is kept where its values are not finite or its gradient is an outlier (`[guard]`)")
        })?;
        return Ok((folder, newest));
    }
    let folder = step.parent().and_then(Path::parent);
    let folder = folder.filter(|_| step.is_file()).ok_or_else(|| {
        error("a run folder, or a file in its folder `offending`").value(if step.exists() {
            "another file"
        } else {
            "missing"
        })
    })?;
    Ok((RunFolder::at(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }), step.to_path_buf()))
}
