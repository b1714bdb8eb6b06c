//! How the ranks of a run talk. Knows tensors and ranks, nothing of models, losses or configurations.

mod clock;
mod devices;
mod gpu;
mod host_sum;
mod machine;
mod measure;
mod mpi;
mod nccl;
mod session;
mod single;

use std::sync::Arc;

use anyhow::Result;
use tch::{Kind, Tensor};

pub use crate::clock::Alignment;
pub use crate::devices::Refusal;
pub use crate::host_sum::HostSum;
pub use crate::machine::{host_name, visible_gpus};
pub use crate::measure::{MeasuredSum, measure_plain_mpi, measure_sum};
pub use crate::session::{Session, World};
pub use crate::single::Single;

/// What the ranks of one run can do together. Every rank must make the same calls in the same order.
pub trait Communicator: Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn world_size(&self) -> usize;

    /// Starts replacing `tensor` (float32, float64 or int64, between GPUs also bfloat16; contiguous) by its sum over the ranks, after the work
    /// already queued on it. Its values may be read after [`finish_sums`](Self::finish_sums).
    ///
    /// # Errors
    /// A tensor of another type or layout, or a failure of the transport.
    fn start_sum(&self, tensor: &Tensor) -> Result<()>;

    /// Whether a started sum makes its way while the caller goes on, so that an early start gains time.
    fn overlaps(&self) -> bool;

    /// Whether [`start_sum`](Self::start_sum) takes tensors of type `kind`.
    fn sums(&self, kind: Kind) -> bool;

    /// Orders everything queued from here on after every started sum.
    ///
    /// # Errors
    /// A failure of the transport.
    fn finish_sums(&self) -> Result<()>;

    /// Copies `tensor` of rank 0 to every rank.
    ///
    /// # Errors
    /// A tensor of another type or layout, or a failure of the transport.
    fn broadcast(&self, tensor: &Tensor) -> Result<()>;

    /// Adds up host values (counts, metrics, stop flags) over the ranks.
    ///
    /// # Errors
    /// A failure of the transport.
    fn sum(&self, values: &mut [f64]) -> Result<()>;

    /// Starts adding up host values over the ranks, without a wait; other calls may come before its
    /// [`finish`](HostSum::finish).
    ///
    /// # Errors
    /// A failure of the transport.
    fn start_host_sum(&self, values: Vec<f64>) -> Result<HostSum>;

    /// Every rank's text, in rank order, on every rank.
    ///
    /// # Errors
    /// A failure of the transport.
    fn gather(&self, text: &str) -> Result<Vec<String>>;

    /// What this rank's `clock` (seconds) is to the leader's.
    ///
    /// # Errors
    /// A failure of the transport.
    fn align(&self, clock: &dyn Fn() -> f64) -> Result<Alignment>;

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// A failure of the transport.
    fn barrier(&self) -> Result<()>;

    /// Ends every rank with `code`; for errors after which the others would wait forever.
    fn abort(&self, code: i32) -> !;

    /// Whether this rank is the one that writes files and speaks to the user.
    fn is_leader(&self) -> bool {
        self.rank() == 0
    }
}

/// Which device a run computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// A GPU for every rank where there are GPUs, else the CPU.
    #[default]
    Auto,
    /// The CPU, whatever else is there.
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
    /// As it is configured.
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Nccl => "nccl",
            Self::Mpi => "mpi",
        }
    }
}

/// Tells the user of a fault on this rank that no call can return, because the calls hang.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// What a session is to be made of.
#[derive(Clone)]
pub struct Request {
    /// Where to compute.
    pub compute: Compute,
    /// How tensors travel.
    pub backend: Backend,
    /// Whether several ranks may share a GPU, for tests of the program.
    pub share_gpus: bool,
    /// Where faults are told that hang.
    pub report: Report,
}

/// Whether an MPI launcher started this process.
pub fn started_by_mpi() -> bool {
    launcher_rank().is_some()
}

/// This process's rank as its MPI launcher announces it, before MPI is initialised: each sets a variable of its own.
pub fn launcher_rank() -> Option<usize> {
    const RANK_VARIABLES: [&str; 5] =
        ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "MPI_LOCALRANKID"];
    let value = RANK_VARIABLES.iter().find_map(|name| std::env::var(name).ok())?;
    Some(value.trim().parse().unwrap_or(0))
}

/// This rank's value if every rank has one, else the first rank's error on all: a rank that left alone would wait in
/// `MPI_Finalize` for others that wait for it.
fn together<T>(ranks: &dyn Communicator, result: Result<T>) -> Result<T> {
    let errors = ranks.gather(&result.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default())?;
    match errors.iter().position(|error| !error.is_empty()) {
        None => result,
        Some(rank) => anyhow::bail!("rank {rank}: {}", errors[rank]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_alone_is_its_own_sum() {
        let mut values = [1.5, 2.0];
        Single.sum(&mut values).unwrap();
        assert_eq!(values, [1.5, 2.0]);
        assert_eq!(Single.start_host_sum(values.to_vec()).unwrap().finish().unwrap(), values);
        assert_eq!(Single.gather("here").unwrap(), ["here"]);
        assert!(Single.is_leader());
        assert_eq!(together(&Single, Ok(3)).unwrap(), 3);
        let error = together::<()>(&Single, Err(anyhow::anyhow!("no GPU"))).unwrap_err();
        assert_eq!(error.to_string(), "rank 0: no GPU");
    }
}
