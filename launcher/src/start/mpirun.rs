//! The command line of the mpirun that belongs to the MPI of this program.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};

use super::binding::Binding;
use super::environment::{PARENT, mpirun, variable};
use super::exports::exports;

/// Open MPI settings that apply unless the user sets them: a node that vanishes without closing its connections is noticed
/// after 5 + 5 s instead of minutes.
const OPEN_MPI: [(&str, &str); 5] = [
    ("OMPI_MCA_oob_tcp_keepalive_time", "5"),
    ("OMPI_MCA_oob_tcp_keepalive_intvl", "1"),
    ("OMPI_MCA_oob_tcp_keepalive_probes", "5"),
    // Open MPI refuses root unless told twice that it is meant, as it is in containers.
    ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
    ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
];

/// This program with other arguments, on `ranks` ranks.
///
/// # Errors
/// There is no mpirun.
pub(crate) fn on_ranks<A: AsRef<OsStr>>(ranks: usize, arguments: impl IntoIterator<Item = A>) -> Result<Command> {
    let mpirun = mpirun();
    let mut command = Command::new(&mpirun);
    let open_mpi = is_open_mpi(&mpirun)?;
    command.args(["-n", &ranks.to_string()]).args(Binding::of(ranks, open_mpi).arguments(open_mpi));
    if open_mpi {
        command.args(exports(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok())));
        command.envs(OPEN_MPI.iter().filter(|(name, _)| variable(name).is_none()).copied());
    }
    command.env(PARENT, std::process::id().to_string());
    give_threads(&mut command, ranks);
    command.arg(program()?).args(arguments);
    Ok(command)
}

/// What `iad-launch --ranks N` does with the cores of this machine, for people.
pub(crate) fn binding_in_words() -> String {
    // Whichever mpirun it is: one that does not start is told of elsewhere.
    Binding::of(1, is_open_mpi(&mpirun()).unwrap_or(true)).in_words()
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

pub(super) fn program() -> Result<PathBuf> {
    std::env::current_exe().context("finding this program's file")
}

/// The cores of this node, divided by its ranks, unless the user has said otherwise.
fn give_threads(command: &mut Command, ranks: usize) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if variable("OMP_NUM_THREADS").is_none() {
        command.env("OMP_NUM_THREADS", (cores / ranks).max(1).to_string());
    }
}

fn is_open_mpi(mpirun: &str) -> Result<bool> {
    let output = Command::new(mpirun).arg("--version").output().with_context(not_started)?;
    let text = String::from_utf8_lossy(&output.stdout).to_lowercase();
    Ok(text.contains("open mpi") || text.contains("open-mpi") || text.contains("openrte"))
}

/// What to do where mpirun does not start.
pub(super) fn not_started() -> String {
    format!(
        "starting {}; install Open MPI, or set IAD_MPIRUN to the mpirun of the MPI this program was built with",
        mpirun()
    )
}
