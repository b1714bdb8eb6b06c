//! Starting the ranks of a run through the mpirun of the MPI that the program was built with.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::command::Where;
use crate::console::{error_text, say};
use crate::ranks::variable;
use crate::restart::{Attempts, Next, ranks_left, standing};
use crate::spoken::Spoken;
use crate::{STOPPED, watch, world};

/// Ranks end by themselves sooner than this after their mpirun; then they are killed.
const GRACE: Duration = Duration::from_secs(10);

/// What a launched Open MPI is told, unless the user has: a node that is gone without a word, as behind a cut cable, is
/// noticed after 5 + 5 s instead of minutes.
const OPEN_MPI: [(&str, &str); 5] = [
    ("OMPI_MCA_oob_tcp_keepalive_time", "5"),
    ("OMPI_MCA_oob_tcp_keepalive_intvl", "1"),
    ("OMPI_MCA_oob_tcp_keepalive_probes", "5"),
    // Open MPI refuses root unless told twice that it is meant, as it is in containers.
    ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
    ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
];

/// The mpirun that belongs to this program's MPI; `IAD_MPIRUN` chooses another.
pub(crate) fn mpirun() -> String {
    variable("IAD_MPIRUN").unwrap_or_else(|| env!("IAD_MPIRUN").to_string())
}

/// How many ranks this command wants, where no MPI launcher has decided it.
///
/// # Errors
/// There are GPUs that cannot be used; or this is one of many copies, which must not each start ranks.
pub(crate) fn ranks(place: &Where) -> Result<usize> {
    world::check(1, variable)?;
    Ok(match place.ranks {
        Some(ranks) => ranks.into(),
        None => gpus(place)?.max(1),
    })
}

/// Whether ranks are started by an mpirun of ours: several, or those that are to be started again.
pub(crate) fn needs_mpirun(place: &Where, ranks: usize) -> bool {
    ranks > 1 || place.max_restarts > 0
}

fn gpus(place: &Where) -> Result<usize> {
    match place.device.compute() {
        comm::Compute::Cpu => Ok(0),
        comm::Compute::Auto => comm::visible_gpus(),
    }
}

/// `iad-launch count-gpus`, for [`gpus_now`].
///
/// # Errors
/// There are GPUs that cannot be used.
pub(crate) fn print_gpus() -> Result<()> {
    writeln!(std::io::stdout(), "{}", comm::visible_gpus()?).context("writing the number of GPUs")
}

/// The GPUs that a new process finds: this one remembers what it found first.
fn gpus_now() -> Result<usize> {
    let output = Command::new(program()?).arg("count-gpus").output().context("counting GPUs")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| anyhow!("counting GPUs: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Runs this same command on `ranks` ranks and returns its exit code; starts it again after failures as often as
/// `place.max_restarts` says, while something new in `folders` shows that it helps. Requests to stop are passed on.
///
/// # Errors
/// mpirun cannot be started.
pub(crate) fn spawn(place: &Where, ranks: usize, folders: &[PathBuf]) -> Result<u8> {
    let first_gpus = if place.max_restarts > 0 { gpus(place)? } else { 0 };
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).context("listening to signals")?;
    let mut attempts = Attempts::new(place.max_restarts);
    let mut ranks_now = ranks;
    loop {
        let before = standing(folders);
        let mut running = start(ranks_now)?;
        let (status, stop_requested) = wait(&mut running.mpirun, &mut signals)?;
        let (code, how) = running.end(status);
        let pause = match attempts.after(code, stop_requested, standing(folders) != before) {
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
        while Instant::now() < wake {
            if signals.pending().next().is_some() {
                say("stopped before the next start; the same command goes on from here");
                return Ok(STOPPED);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// An mpirun under way.
struct Running {
    mpirun: Child,
    /// At the end of its stderr: the rank that mpirun says was killed.
    killed: Receiver<Option<String>>,
}

fn start(ranks: usize) -> Result<Running> {
    let mpirun = mpirun();
    let mut command = on_ranks(ranks, std::env::args_os().skip(1))?;
    command.stderr(Stdio::piped());
    // A group of its own: Ctrl-C reaches us alone, and we ask the ranks to stop instead of having them killed.
    command.process_group(0);
    let mut child = command.spawn().with_context(|| not_started(&mpirun))?;
    let (sender, killed) = channel();
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || drop(sender.send(pass_on(stderr))));
    }
    Ok(Running { mpirun: child, killed })
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
        // More ranks than cores are slow, not wrong; a GPU run needs few cores.
        command.arg("--oversubscribe");
        command.envs(OPEN_MPI.iter().filter(|(name, _)| variable(name).is_none()).copied());
    }
    command.env(watch::PARENT, std::process::id().to_string());
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
    if variable("OMP_NUM_THREADS").is_none() {
        command.env("OMP_NUM_THREADS", (cores / ranks).max(1).to_string());
    }
}

/// Shows what the ranks say, and returns the rank that mpirun says was killed.
fn pass_on(stderr: ChildStderr) -> Option<String> {
    let mut spoken = Spoken::default();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        spoken.line(String::from_utf8_lossy(&line).into_owned()).iter().for_each(|line| say(line));
    }
    spoken.rest().iter().for_each(|line| say(line));
    spoken.killed().map(str::to_string)
}

impl Running {
    /// Once mpirun has ended: this run's exit code, and how it ended in words. None of its processes on this node is left.
    fn end(self, status: ExitStatus) -> (u8, String) {
        let code = status.code().map_or(1, exit_code);
        if code == 1 {
            end_leftovers();
        }
        let killed = self.killed.recv_timeout(Duration::from_secs(1)).ok().flatten();
        let how = match (killed, status.signal()) {
            (Some(rank), _) => rank,
            (None, Some(signal)) => format!("mpirun was killed by signal {signal}"),
            (None, None) => {
                return (code, format!("the ranks failed (mpirun's exit code is {})", status.code().unwrap_or(1)));
            }
        };
        error_text(&how);
        (code, how)
    }
}

fn not_started(mpirun: &str) -> String {
    format!(
        "starting {mpirun}; install Open MPI, or set IAD_MPIRUN to the mpirun of the MPI this program was built with"
    )
}

fn is_open_mpi(mpirun: &str) -> Result<bool> {
    let output = Command::new(mpirun).arg("--version").output().with_context(|| not_started(mpirun))?;
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    Ok(text.contains("open mpi") || text.contains("open-mpi") || text.contains("openrte"))
}

/// Waits for mpirun, and says whether a stop was requested meanwhile.
fn wait(mpirun: &mut Child, signals: &mut Signals) -> Result<(ExitStatus, bool)> {
    let mut requested = false;
    loop {
        for signal in signals.pending() {
            // mpirun passes USR1 to every rank, while TERM and INT would make it kill them.
            kill("-USR1", &[mpirun.id()]);
            say(&format!("signal {signal}: stopping after the step under way"));
            requested = true;
        }
        if let Some(status) = mpirun.try_wait().context("waiting for mpirun")? {
            return Ok((status, requested));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn kill(signal: &str, processes: &[u32]) {
    let _ = Command::new("kill").arg(signal).args(processes.iter().map(u32::to_string)).stderr(Stdio::null()).status();
}

/// Waits until the processes that this one started through mpirun are gone, and in the end kills them: they hold the run
/// folder, and GPUs.
fn end_leftovers() {
    let mark = format!("{}={}", watch::PARENT, std::process::id());
    let ours = |process: &u32| {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let began = Instant::now();
    loop {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let left: Vec<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect();
        if left.is_empty() || began.elapsed() > 2 * GRACE {
            return;
        }
        if began.elapsed() > GRACE {
            kill("-KILL", &left);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Ours are passed on; what mpirun says of killed ranks counts as a failed run.
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).ok().filter(|code| [0, 2, STOPPED].contains(code)).unwrap_or(1)
}
