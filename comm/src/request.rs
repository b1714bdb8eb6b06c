//! What the user asks of a session.

use std::sync::Arc;

/// Which device a run computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// A GPU for every rank where there are GPUs, else the CPU.
    #[default]
    Auto,
    /// The CPU, also where there are GPUs.
    Cpu,
}

/// How tensors travel between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// NCCL between GPUs, MPI between CPUs.
    #[default]
    Auto,
    /// NCCL; every rank needs a GPU.
    Nccl,
    /// MPI; GPUs' tensors travel through the memory of the host.
    Mpi,
}

impl Backend {
    /// Its name in a configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nccl => "nccl",
            Self::Mpi => "mpi",
        }
    }
}

/// Tells the user of a fault on this rank that no call can return because the calls hang.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// The devices and the transport that a session should have.
#[derive(Clone)]
pub struct Request {
    /// Where to compute.
    pub compute: Compute,
    /// How tensors travel.
    pub backend: Backend,
    /// Whether several ranks may share a GPU, for tests of the program.
    pub share_gpus: bool,
    /// Whether graphs of a GPU hold sums.
    pub in_graphs: bool,
    /// Whether small sums go through NCCL's symmetric windows, where it has them.
    pub windows: bool,
    /// Where faults are told that no call returns.
    pub report: Report,
}
