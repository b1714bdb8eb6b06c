//! The variables by which MPI launchers tell a process its rank and the number of ranks, before MPI is initialised.

/// The variables of a rank, of Open MPI, PMIx (Open MPI 5, srun), PMI (MPICH, Intel MPI, srun), MVAPICH and Intel MPI. The first
/// one that is set counts.
pub const RANK_VARIABLES: [&str; 5] =
    ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "MPI_LOCALRANKID"];

/// The variables of the number of ranks, of Open MPI, PMI (MPICH, Intel MPI, srun) and MVAPICH.
pub const SIZE_VARIABLES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE"];

/// Whether an MPI launcher started this process.
pub fn started_by_mpi() -> bool {
    launcher_rank().is_some()
}

/// This process's rank as its MPI launcher announces it; 0 where the value is no number.
pub fn launcher_rank() -> Option<usize> {
    let value = RANK_VARIABLES.iter().find_map(|name| std::env::var(name).ok())?;
    Some(value.trim().parse().unwrap_or(0))
}
