//! Where a command computes, and on how many ranks.

use std::time::Duration;

use clap::{Args, ValueEnum};
use trainer::system::Fault;

/// Where a command computes.
#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// Number of ranks to start (default: one per visible GPU, or one on a CPU). Leave it out under mpirun and srun.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ranks: Option<u16>,
    /// Devices to compute on.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
    /// Restart the ranks after a failure, up to N times, from the newest checkpoint and on the remaining GPUs.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_restarts: u32,
    /// Stop in time to end within this time, as in 3h 50min, saved, with exit code 85. SLURM's end of the job counts as well.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) time_limit: Option<Duration>,
    /// Inject one fault to rehearse it (with --allow-fault-injection): `rank=1,step=40,phase=attack,kind=hang`. Kinds: hang,
    /// kill, panic, nan, desync, slow (with ms=1000), io-error, signal.
    #[arg(long, value_name = "FAULT", requires = "allow_fault_injection")]
    pub(crate) inject: Option<Fault>,
    /// Allow --inject.
    #[arg(long)]
    pub(crate) allow_fault_injection: bool,
}

/// Which devices to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeviceChoice {
    /// All visible GPUs, or the CPU without one.
    Auto,
    /// The CPU only.
    Cpu,
}

impl DeviceChoice {
    /// The choice as `comm` names it.
    pub(crate) fn compute(self) -> comm::Compute {
        match self {
            DeviceChoice::Auto => comm::Compute::Auto,
            DeviceChoice::Cpu => comm::Compute::Cpu,
        }
    }
}
