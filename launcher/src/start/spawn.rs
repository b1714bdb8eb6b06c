//! Starting the ranks of a command, and starting them again after failures.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::announced;
use super::deadline::Deadline;
use super::environment::variable;
use super::mpirun::program;
use super::restart::{Attempts, Next, ranks_left, saved_progress};
use super::running::Running;
use super::signals::stop_requested;
use crate::command::LaunchArgs;
use crate::console::{Out, say};
use crate::exit::STOPPED;

/// The number of ranks to start, if no MPI launcher has decided it.
///
/// # Errors
/// There are GPUs that cannot be used; or this is one of many copies, which must not each start ranks.
pub(crate) fn ranks(launch: &LaunchArgs) -> Result<usize> {
    announced::check(1, variable)?;
    Ok(match launch.ranks {
        Some(ranks) => ranks.into(),
        None => gpus(launch)?.max(1),
    })
}

/// Whether this program starts the ranks through mpirun: for several ranks, or with restarts.
pub(crate) fn needs_mpirun(launch: &LaunchArgs, ranks: usize) -> bool {
    ranks > 1 || launch.max_restarts > 0
}

fn gpus(launch: &LaunchArgs) -> Result<usize> {
    match launch.device.compute() {
        comm::Compute::Cpu => Ok(0),
        comm::Compute::Auto => comm::visible_gpus(),
    }
}

/// `iad-launch count-gpus`, for [`gpus_now`].
///
/// # Errors
/// There are GPUs that cannot be used.
pub(crate) fn print_gpus() -> Result<()> {
    writeln!(Out, "{}", comm::visible_gpus()?).context("writing the number of GPUs")
}

/// The GPUs that a new process finds: this one remembers what it found first.
fn gpus_now() -> Result<usize> {
    let output = Command::new(program()?).arg("count-gpus").output().context("counting GPUs")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| anyhow!("counting GPUs: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Runs this same command on `ranks` ranks and returns its exit code; starts it again after failures as often as
/// `launch.max_restarts` says, while something new in `folders` shows that it helps. Requests to stop are passed on.
///
/// # Errors
/// mpirun cannot be started.
pub(crate) fn spawn(launch: &LaunchArgs, ranks: usize, folders: &[PathBuf]) -> Result<u8> {
    let first_gpus = if launch.max_restarts > 0 { gpus(launch)? } else { 0 };
    let mut attempts = Attempts::new(launch.max_restarts);
    let mut ranks_now = ranks;
    let deadline = Deadline::of(launch);
    loop {
        let before = saved_progress(folders);
        if stop_requested() {
            say("stopped before the ranks started; the same command goes on from here");
            return Ok(STOPPED);
        }
        let (code, how) = Running::start(ranks_now, attempts.made > 0, deadline)?.watch()?;
        let pause = match attempts.after(code, stop_requested(), saved_progress(folders) != before) {
            Next::End => return Ok(code),
            Next::GiveUp(reason) => {
                say(&format!("iad-launch: not started again after {how}: {reason}"));
                return Ok(code);
            }
            Next::Again(pause) => pause,
        };
        let left = if first_gpus == 0 { 0 } else { gpus_now()? };
        ranks_now = ranks_left(ranks, first_gpus, left).map_err(|reason| anyhow!("not started again: {reason}"))?;
        say(&format!(
            "iad-launch: attempt {} of {} ended: {how}; starting {ranks_now} ranks again in {} s, from the newest checkpoint",
            attempts.made,
            attempts.allowed + 1,
            pause.as_secs()
        ));
        let wake = Instant::now() + pause;
        while Instant::now() < wake && !stop_requested() {
            thread::sleep(Duration::from_millis(50));
        }
    }
}
