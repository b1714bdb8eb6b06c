//! Sums over ranks by MPI, on host memory. A GPU's tensors travel through the host.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result, bail, ensure};
use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::environment::{Threading, Universe};
use mpi::topology::{Communicator as _, SimpleCommunicator};
use mpi::traits::{AsRaw, CommunicatorCollectives as _, Equivalence, Root as _};
use tch::{Device, Kind, Tensor};

use crate::clock::{self, Alignment};
use crate::communicator::Communicator;
use crate::host_sum::HostSum;

unsafe extern "C" {
    fn iad_mpi_in_place() -> *mut c_void;
}

/// The ranks of an MPI job.
pub(crate) struct Mpi {
    rank: usize,
    world_size: usize,
    world: Arc<Mutex<World>>,
}

struct World(SimpleCommunicator);

// SAFETY: the handle names MPI_COMM_WORLD for the whole life of the process; MPI runs at thread level SERIALIZED and every
// use goes through the mutex of `Mpi`, so no two threads are inside MPI at once.
unsafe impl Send for World {}

/// Starts MPI. The universe must be dropped last: it ends MPI.
pub(crate) fn initialise() -> Result<(Universe, Mpi)> {
    let (universe, threading) =
        mpi::initialize_with_threading(Threading::Serialized).context("MPI was already initialised")?;
    ensure!(threading >= Threading::Serialized, "this MPI cannot be called from more than one thread");
    let world = universe.world();
    let (rank, world_size) = (world.rank() as usize, world.size() as usize);
    Ok((universe, Mpi { rank, world_size, world: Arc::new(Mutex::new(World(world))) }))
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Mpi {
    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// This rank's number among those that share its node's memory.
    pub(crate) fn local_rank(&self) -> usize {
        self.world().0.split_shared(self.rank as i32).rank() as usize
    }

    /// Sums `values` over the ranks, in place and in pieces that fit MPI's 32-bit counts.
    fn sum_slice<T: Equivalence>(&self, values: &mut [T]) -> Result<()> {
        let world = self.world();
        for piece in values.chunks_mut(1 << 28) {
            // SAFETY: `piece` is a live, exclusively borrowed buffer of `piece.len()` values of T's MPI type; the call is
            // blocking, so MPI holds no pointer after it.
            let code = unsafe {
                mpi::ffi::MPI_Allreduce(
                    iad_mpi_in_place(),
                    piece.as_mut_ptr().cast(),
                    piece.len() as i32,
                    T::equivalent_datatype().as_raw(),
                    SystemOperation::sum().as_raw(),
                    world.0.as_raw(),
                )
            };
            ensure!(code == mpi::ffi::MPI_SUCCESS as i32, "MPI_Allreduce failed with code {code}");
        }
        Ok(())
    }

    /// Runs `work` on the host memory of `tensor`, which is copied there and back when it lives on a GPU.
    fn on_host(&self, tensor: &Tensor, work: impl FnOnce(&mut Tensor) -> Result<()>) -> Result<()> {
        ensure!(tensor.is_contiguous(), "only contiguous tensors travel, this one has shape {:?}", tensor.size());
        if tensor.device() == Device::Cpu {
            return work(&mut tensor.shallow_clone());
        }
        let mut host = tensor.to_device(Device::Cpu);
        work(&mut host)?;
        tensor.shallow_clone().copy_(&host);
        Ok(())
    }
}

/// A sum that MPI makes between its other calls, and the buffer it makes it in.
struct Iallreduce {
    values: Vec<f64>,
    /// Null when the sum is done.
    request: mpi::ffi::MPI_Request,
    world: Arc<Mutex<World>>,
}

// SAFETY: the request is a handle that any thread may use, and is used under the mutex of `world` alone.
unsafe impl Send for Iallreduce {}

impl Iallreduce {
    fn start(values: Vec<f64>, world: Arc<Mutex<World>>) -> Result<Self> {
        let count = i32::try_from(values.len()).context("the number of host values")?;
        // SAFETY: a constant of MPI.
        let request = unsafe { mpi::ffi::RSMPI_REQUEST_NULL };
        let mut sum = Self { values, request, world };
        let world = lock(&sum.world);
        // SAFETY: `values` has `count` float64 on the heap, where they stay when the struct is moved. Nobody touches them until
        // `wait`, which every owner of the struct comes through, at the latest in its drop.
        let code = unsafe {
            mpi::ffi::MPI_Iallreduce(
                iad_mpi_in_place(),
                sum.values.as_mut_ptr().cast(),
                count,
                f64::equivalent_datatype().as_raw(),
                SystemOperation::sum().as_raw(),
                world.0.as_raw(),
                &raw mut sum.request,
            )
        };
        drop(world);
        ensure!(code == mpi::ffi::MPI_SUCCESS as i32, "MPI_Iallreduce failed with code {code}");
        Ok(sum)
    }

    /// Returns when MPI is done with the buffer; at once if it was before.
    fn wait(&mut self) -> Result<()> {
        let _world = lock(&self.world);
        // SAFETY: the request is null or of a sum that was started, and MPI makes it null; no status is asked for.
        let code = unsafe { mpi::ffi::MPI_Wait(&raw mut self.request, mpi::ffi::RSMPI_STATUS_IGNORE) };
        ensure!(code == mpi::ffi::MPI_SUCCESS as i32, "MPI_Wait failed with code {code}");
        Ok(())
    }
}

impl Drop for Iallreduce {
    fn drop(&mut self) {
        // MPI's own handler of errors has ended the process where this fails.
        let _ = self.wait();
    }
}

/// Calls `$work` with the tensor's values as a mutable slice of their type.
macro_rules! with_values {
    ($tensor:expr, $values:ident => $work:expr) => {
        match $tensor.kind() {
            Kind::Float => {
                let $values = values_of::<f32>($tensor);
                $work
            }
            Kind::Double => {
                let $values = values_of::<f64>($tensor);
                $work
            }
            Kind::Int64 => {
                let $values = values_of::<i64>($tensor);
                $work
            }
            kind => bail!("tensors of type {kind:?} do not travel by MPI; float32, float64 and int64 do"),
        }
    };
}

/// One call of `MPI_Allreduce` on a contiguous float32 tensor in host memory, in place and without anything around it.
pub(crate) fn plain_sum(tensor: &Tensor) -> Result<()> {
    ensure!(tensor.is_contiguous() && tensor.kind() == Kind::Float && tensor.device() == Device::Cpu);
    let count = i32::try_from(tensor.numel()).context("more values than a call of MPI takes")?;
    // SAFETY: the tensor holds `count` float32 values in host memory, which nobody else uses during the blocking call; MPI is
    // initialised, for `Session::has_mpi` said so.
    let code = unsafe {
        mpi::ffi::MPI_Allreduce(
            iad_mpi_in_place(),
            tensor.data_ptr(),
            count,
            f32::equivalent_datatype().as_raw(),
            SystemOperation::sum().as_raw(),
            mpi::ffi::RSMPI_COMM_WORLD,
        )
    };
    ensure!(code == mpi::ffi::MPI_SUCCESS as i32, "MPI_Allreduce failed with code {code}");
    Ok(())
}

/// The values of a contiguous CPU tensor whose type is T.
fn values_of<T>(tensor: &mut Tensor) -> &mut [T] {
    // SAFETY: `on_host` saw that the tensor is contiguous and `with_values` that it holds T; the memory lives as long as the
    // borrowed handle, and a collective is its only user meanwhile, as the contract of `start_sum` says.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    // MPI makes little progress outside its calls, so the sum is done at once: starting it early gains nothing.
    fn start_sum(&self, tensor: &Tensor) -> Result<()> {
        self.on_host(tensor, |tensor| with_values!(tensor, values => self.sum_slice(values)))
    }

    fn overlaps(&self) -> bool {
        false
    }

    fn sums(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Float | Kind::Double | Kind::Int64)
    }

    fn finish_sums(&self) -> Result<()> {
        Ok(())
    }

    fn broadcast(&self, tensor: &Tensor) -> Result<()> {
        self.on_host(tensor, |tensor| {
            with_values!(tensor, values => {
                let world = self.world();
                for piece in values.chunks_mut(1 << 28) {
                    world.0.process_at_rank(0).broadcast_into(piece);
                }
                Ok(())
            })
        })
    }

    fn sum(&self, values: &mut [f64]) -> Result<()> {
        self.sum_slice(values)
    }

    fn start_host_sum(&self, values: Vec<f64>) -> Result<HostSum> {
        let mut sum = Iallreduce::start(values, Arc::clone(&self.world))?;
        Ok(HostSum::new(move || {
            sum.wait()?;
            Ok(std::mem::take(&mut sum.values))
        }))
    }

    fn gather(&self, text: &str) -> Result<Vec<String>> {
        let world = self.world();
        // A byte more than the text: Open MPI refuses to gather nothing at all.
        let text = [text.as_bytes(), b"\n"].concat();
        let mut lengths = vec![0i32; self.world_size];
        world.0.all_gather_into(&(text.len() as i32), &mut lengths[..]);
        let offsets: Vec<i32> = lengths
            .iter()
            .scan(0, |end, length| {
                *end += length;
                Some(*end - length)
            })
            .collect();
        let mut bytes = vec![0u8; lengths.iter().sum::<i32>() as usize];
        let mut partition = PartitionMut::new(&mut bytes[..], &lengths[..], &offsets[..]);
        world.0.all_gather_varcount_into(&text[..], &mut partition);
        let texts = lengths.iter().zip(&offsets).map(|(&length, &offset)| {
            String::from_utf8_lossy(&bytes[offset as usize..(offset + length - 1) as usize]).into_owned()
        });
        Ok(texts.collect())
    }

    fn align(&self, clock: &dyn Fn() -> f64) -> Result<Alignment> {
        clock::align(&self.world().0, self.is_leader(), clock)
    }

    fn barrier(&self) -> Result<()> {
        self.world().0.barrier();
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        // Not through the mutex: the thread that holds it may be the one that waits for ranks that will never come.
        // SAFETY: MPI_Abort may be called at any time between initialisation and finalisation; it does not return.
        unsafe { mpi::ffi::MPI_Abort(mpi::ffi::RSMPI_COMM_WORLD, code) };
        std::process::exit(code)
    }
}
