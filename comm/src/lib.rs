//! How the ranks of a run talk. Knows tensors and ranks, nothing of models, losses or configurations.

mod clock;
mod host_sum;
mod measure;
mod mpi;
mod single;

use std::sync::Arc;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

pub use crate::clock::Alignment;
pub use crate::host_sum::HostSum;
pub use crate::measure::{MeasuredSum, measure_plain_mpi, measure_sum};
pub use crate::single::Single;

/// What the ranks of one run can do together. Every rank must make the same calls in the same order.
pub trait Communicator: Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn world_size(&self) -> usize;

    /// Starts replacing `tensor` (float32, float64 or int64, contiguous) by its sum over the ranks, after the work
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

/// Membership in a run. Its drop is `MPI_Finalize`, so it lives in `main` and nowhere else.
pub struct Session {
    /// What this rank uses to talk to the others.
    pub ranks: Arc<dyn Communicator>,
    /// Where this rank computes.
    pub device: Device,
    /// This rank's number among those of its node.
    pub local_rank: usize,
    /// The number of threads this rank computes with.
    pub threads: usize,
    /// The word for the transport in logs.
    pub backend: &'static str,
    universe: Option<::mpi::environment::Universe>,
}

impl Session {
    /// Joins the run this process was started for: that of `mpirun` (or another MPI launcher), or a run of one.
    ///
    /// # Errors
    /// MPI cannot be initialised, or there are GPUs that this process cannot use.
    pub fn join(compute: Compute) -> Result<Self> {
        // MPI lives to the end of the process, so what can fail comes after it in a way that leaves it in order.
        let (universe, communicator) = mpi_of_this_process()?.unzip();
        let (local_rank, local_size) = match &communicator {
            Some(communicator) => communicator.place_on_node()?,
            None => (0, 1),
        };
        let backend = if universe.is_some() { "mpi" } else { "single" };
        let ranks: Arc<dyn Communicator> = match communicator {
            Some(communicator) => Arc::new(communicator),
            None => Arc::new(Single),
        };
        let device = together(ranks.as_ref(), choose_device(compute, local_rank, local_size))?;
        let threads = choose_threads(ranks.as_ref())?;
        tch::set_num_threads(threads as i32);
        torch_ext::keep_memory();
        torch_ext::exact_arithmetic().map_err(anyhow::Error::msg)?;
        Ok(Self { ranks, device, local_rank, threads, backend, universe })
    }

    /// The versions of the libraries at work, for logs.
    pub fn libraries(&self) -> String {
        let mpi = self.universe.as_ref().map_or("none".to_string(), |_| {
            let version = ::mpi::environment::library_version().unwrap_or_default();
            version.split(',').next().unwrap_or_default().trim_matches(['\0', ' ', '\n']).to_string()
        });
        format!("libtorch {}, MPI {mpi}", torch_ext::version())
    }

    /// Whether MPI was started.
    pub(crate) fn has_mpi(&self) -> bool {
        self.universe.is_some()
    }

    /// Leaves the run in good order: waits for the other ranks, then ends MPI.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn leave(self) -> Result<()> {
        self.ranks.barrier()?;
        drop(self.universe);
        Ok(())
    }
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

/// The number of GPUs this process can use; 0 on a machine without any.
///
/// # Errors
/// An NVIDIA driver is there but libtorch's CUDA half does not load or sees no GPU: never a silent run on the CPU.
pub fn visible_gpus() -> Result<usize> {
    let driver = std::path::Path::new("/proc/driver/nvidia/version").exists();
    let hidden = std::env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|list| list.is_empty() || list == "-1");
    if !driver || hidden {
        return Ok(0);
    }
    // First of all CUDA questions: libtorch remembers the first answer.
    torch_ext::load_cuda().map_err(|reason| {
        anyhow::anyhow!("this machine has an NVIDIA driver, but libtorch_cuda does not load: {reason}")
    })?;
    match tch::Cuda::device_count() {
        count if count > 0 => Ok(count as usize),
        _ => anyhow::bail!("this machine has an NVIDIA driver, but libtorch sees no GPU; see `nvidia-smi`"),
    }
}

fn mpi_of_this_process() -> Result<Option<(::mpi::environment::Universe, mpi::Mpi)>> {
    if started_by_mpi() { mpi::initialise().map(Some) } else { Ok(None) }
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

/// This machine's name, as the kernel has it.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string()
}

/// The cores this rank may use, divided by the ranks of its node that may use the same ones: right whether a launcher bound
/// the ranks to cores or sockets, a container limits them, or nobody did. `OMP_NUM_THREADS` decides where it is set.
fn choose_threads(ranks: &dyn Communicator) -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap_or_default();
    let mine = format!("{} {allowed}", host_name());
    let sharers = ranks.gather(&mine)?.iter().filter(|other| **other == mine).count();
    let wanted =
        std::env::var("OMP_NUM_THREADS").ok().and_then(|text| text.trim().parse().ok()).filter(|&count| count > 0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(wanted.unwrap_or_else(|| (cores / sharers.max(1)).max(1)))
}

/// One visible GPU is device 0 for its rank (the scheduler chose it); of several, a rank takes the one of its local rank.
fn choose_device(compute: Compute, local_rank: usize, local_size: usize) -> Result<Device> {
    if compute == Compute::Cpu {
        return Ok(Device::Cpu);
    }
    let gpus = visible_gpus()?;
    match gpus {
        0 => Ok(Device::Cpu),
        1 => Ok(Device::Cuda(0)),
        _ if local_size <= gpus => Ok(Device::Cuda(local_rank)),
        _ => anyhow::bail!("{local_size} ranks on this node for {gpus} GPUs; start at most one rank per GPU"),
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
        assert!(choose_threads(&Single).unwrap() >= 1);
        assert_eq!(together(&Single, Ok(3)).unwrap(), 3);
        let error = together::<()>(&Single, Err(anyhow::anyhow!("no GPU"))).unwrap_err();
        assert_eq!(error.to_string(), "rank 0: no GPU");
    }
}
