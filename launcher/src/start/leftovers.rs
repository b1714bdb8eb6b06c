//! The end of processes that outlive their mpirun.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::environment::PARENT;

/// Ranks end by themselves sooner than this after their mpirun; then they are killed.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// Kills a process. One that is gone already needs none.
fn kill(process: u32) {
    if let Ok(process) = i32::try_from(process) {
        let _ = signal::kill(Pid::from_raw(process), Signal::SIGKILL);
    }
}

/// Whether a process is stopped, as by SIGSTOP: its state follows the name in brackets.
pub(super) fn is_stopped(process: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// A rank on this node, in words, that is stopped, as by SIGSTOP. Where all are, the whole run is suspended: that is none,
/// unless the run has `ended`.
pub(super) fn stopped_rank(mpirun: u32, ended: bool) -> Option<String> {
    let (stopped, others): (Vec<u32>, Vec<u32>) =
        started().into_iter().filter(|process| *process != mpirun).partition(|process| is_stopped(*process));
    let process = *stopped.first().filter(|_| ended || !others.is_empty())?;
    Some(match rank_of(process) {
        Some(rank) => format!("rank {rank} is stopped (SIGSTOP)"),
        None => format!("process {process} is stopped (SIGSTOP)"),
    })
}

/// The rank that a process is, by the variables of its launcher.
fn rank_of(process: u32) -> Option<usize> {
    let variables = environment(process);
    let value = |name: &str| {
        variables.split(|byte| *byte == 0).find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    comm::RANK_VARIABLES.iter().find_map(|name| std::str::from_utf8(value(name)?).ok()?.parse().ok())
}

/// The environment that a process was started with; empty for one that is gone, or another user's.
fn environment(process: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default()
}

/// The processes on this node that this one started through mpirun, and that mpirun itself.
fn started() -> Vec<u32> {
    let mark = format!("{}={}", PARENT, std::process::id());
    let ours = |process: &u32| environment(*process).split(|byte| *byte == 0).any(|one| one == mark.as_bytes());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
}

/// Kills the ranks on this node, but not their `mpirun`.
pub(super) fn kill_ranks(mpirun: u32) {
    started().into_iter().filter(|process| *process != mpirun).for_each(kill);
}

/// Waits until the processes that this one started through mpirun are gone, and kills them after `grace`: they hold the run
/// folder, and GPUs.
pub(super) fn end_leftovers(grace: Duration) {
    let began = Instant::now();
    loop {
        let left = started();
        if left.is_empty() || began.elapsed() > grace + GRACE {
            return;
        }
        if began.elapsed() >= grace {
            left.into_iter().for_each(kill);
        }
        thread::sleep(Duration::from_millis(50));
    }
}
