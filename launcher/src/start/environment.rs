//! Variables of the environment that starting ranks depends on.

use std::time::Duration;

/// Tells the ranks which process started their mpirun.
pub(crate) const PARENT: &str = "IAD_PARENT";

/// Tells the ranks when the command must have ended, in seconds since 1970.
pub(super) const DEADLINE: &str = "IAD_DEADLINE";

/// Set where the ranks are started again after a failure.
pub(super) const AGAIN: &str = "IAD_STARTED_AGAIN";

/// How long a process may be silent, in seconds; 0 turns this off.
const LIVENESS: &str = "IAD_LIVENESS_SECONDS";
const DEFAULT_LIVENESS: u64 = 20;

/// How long a process may be silent before it is given up, unless that is turned off.
pub(super) fn liveness() -> Option<Duration> {
    let seconds = variable(LIVENESS).and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_LIVENESS);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// A variable of the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The number of ranks that an MPI launcher has started, as it announces it.
pub(crate) fn announced_ranks() -> Option<usize> {
    comm::SIZE_VARIABLES.iter().find_map(|name| variable(name)?.trim().parse().ok())
}

/// Whether a typed mpirun of MPICH (Hydra) started this rank. It may end with another code than the ranks after a signal.
pub(super) fn is_under_typed_hydra() -> bool {
    variable("PMI_FD").is_some() && variable("SLURM_STEP_ID").is_none() && variable(PARENT).is_none()
}

/// The mpirun that belongs to this program's MPI; `IAD_MPIRUN` chooses another.
pub(crate) fn mpirun() -> String {
    variable("IAD_MPIRUN").unwrap_or_else(|| env!("IAD_MPIRUN").to_string())
}
