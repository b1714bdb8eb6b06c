//! Starting the ranks of a run through the mpirun of the MPI that the program was built with.

use std::ffi::OsStr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comm::Communicator;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::command::Where;

/// Tells the ranks which process started their mpirun.
const PARENT: &str = "IAD_PARENT";

/// Ends all ranks soon after the process that started them is gone, however it went: mpirun itself would go on.
/// Rank 0 watches, because mpirun puts it on the node of that process.
pub(crate) fn watch_parent(ranks: &Arc<dyn Communicator>) {
    let parent = std::env::var(PARENT).ok().map(|parent| PathBuf::from("/proc").join(parent).join("stat"));
    let Some(parent) = parent.filter(|parent| ranks.is_leader() && lives(parent)) else { return };
    let ranks = Arc::clone(ranks);
    thread::spawn(move || {
        while lives(&parent) {
            thread::sleep(Duration::from_secs(1));
        }
        crate::console::error_text(
            "the process that started these ranks is gone; they end, and the same command resumes",
        );
        ranks.abort(1)
    });
}

/// Whether the process of this /proc/PID/stat lives: its state follows the name in brackets, Z for one that is dead and
/// not yet waited for.
fn lives(stat: &Path) -> bool {
    let text = std::fs::read_to_string(stat).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The mpirun that belongs to this program's MPI; `IAD_MPIRUN` chooses another.
fn mpirun() -> String {
    std::env::var("IAD_MPIRUN").unwrap_or_else(|_| env!("IAD_MPIRUN").to_string())
}

/// How many ranks this command wants, where no MPI launcher has decided it.
///
/// # Errors
/// There are GPUs that cannot be used.
pub(crate) fn ranks(place: &Where) -> Result<usize> {
    match (place.ranks, place.device.compute()) {
        (Some(ranks), _) => Ok(ranks.into()),
        (None, comm::Compute::Cpu) => Ok(1),
        (None, comm::Compute::Auto) => Ok(comm::visible_gpus()?.max(1)),
    }
}

/// Runs this same command on `ranks` ranks and returns its exit code. Requests to stop are passed on to the ranks.
///
/// # Errors
/// mpirun cannot be started, or was killed.
pub(crate) fn spawn(ranks: usize) -> Result<u8> {
    let mpirun = mpirun();
    let mut command = on_ranks(ranks, std::env::args_os().skip(1))?;
    // A group of its own: Ctrl-C reaches us alone, and we ask the ranks to stop instead of having them killed.
    command.process_group(0);
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).context("listening to signals")?;
    let mut child = command.spawn().with_context(|| {
        format!("starting {mpirun}; install Open MPI, or set IAD_MPIRUN to the mpirun of the MPI this program was built with")
    })?;
    wait(&mut child, &mut signals)
}

/// This program with other arguments, on so many ranks.
///
/// # Errors
/// There is no mpirun.
pub(crate) fn on_ranks<A: AsRef<OsStr>>(ranks: usize, arguments: impl IntoIterator<Item = A>) -> Result<Command> {
    let mpirun = mpirun();
    let mut command = Command::new(&mpirun);
    command.args(["-n", &ranks.to_string(), "--bind-to", "none"]);
    if is_open_mpi(&mpirun)? {
        // Our own messages say it better. More ranks than cores are slow, not wrong; a GPU run needs few cores.
        command.args(["--quiet", "--oversubscribe"]);
        // Open MPI refuses root unless told twice that it is meant, as it is in containers.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    command.env(PARENT, std::process::id().to_string());
    give_threads(&mut command, ranks);
    command.arg(program()?).args(arguments);
    Ok(command)
}

/// This program with other arguments, by itself, with the threads that one of so many ranks has.
///
/// # Errors
/// This program's file is not known.
pub(crate) fn one_of<A: AsRef<OsStr>>(ranks: usize, arguments: impl IntoIterator<Item = A>) -> Result<Command> {
    let mut command = Command::new(program()?);
    give_threads(&mut command, ranks);
    command.args(arguments).args(["--ranks", "1"]);
    Ok(command)
}

fn program() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program's file")
}

/// The cores of this node, divided by its ranks, unless the user has said otherwise.
fn give_threads(command: &mut Command, ranks: usize) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        command.env("OMP_NUM_THREADS", (cores / ranks).max(1).to_string());
    }
}

fn is_open_mpi(mpirun: &str) -> Result<bool> {
    let output = Command::new(mpirun).arg("--version").output().with_context(|| {
        format!("starting {mpirun}; install Open MPI, or set IAD_MPIRUN to the mpirun of the MPI this program was built with")
    })?;
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    Ok(text.contains("open mpi") || text.contains("open-mpi") || text.contains("openrte"))
}

fn wait(child: &mut Child, signals: &mut Signals) -> Result<u8> {
    loop {
        for signal in signals.pending() {
            // mpirun passes USR1 to every rank, while TERM and INT would make it kill them.
            let mut kill = Command::new("kill");
            let _ = kill.args(["-USR1", &child.id().to_string()]).status();
            crate::console::say(&format!("signal {signal}: stopping after the step under way"));
        }
        if let Some(status) = child.try_wait().context("waiting for mpirun")? {
            return match (status.code(), status.signal()) {
                (Some(code), _) => Ok(exit_code(code)),
                (None, signal) => bail!("mpirun was killed by signal {}", signal.unwrap_or(0)),
            };
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Ours are passed on; what mpirun says of killed ranks counts as a failed run.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).ok().filter(|code| [0, 2, crate::STOPPED].contains(code)).unwrap_or(1)
}
