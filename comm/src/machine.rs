//! What this rank finds on its machine, and the one thing it changes there.
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::{env, fs, thread};

use anyhow::{Result, ensure};

use crate::devices::{Found, sharing_variables};
use crate::driver::{self, Driver};
use crate::gpu;
use crate::nccl::{self, Limits};
use crate::request::{Backend, Compute, Request};

/// For the tests of this program: NCCL on the host's memory, by a stand-in for it and for the driver.
const ON_HOST: &str = "IAD_TEST_NCCL_ON_HOST";

/// For the tests of this program: a folder in which /proc and /dev show an NVIDIA driver.
const PRETENDED_ROOT: &str = "IAD_TEST_ROOT";

/// Whether this is a test with the stand-ins.
pub(crate) fn on_host() -> bool {
    env::var(ON_HOST).is_ok_and(|value| value == "1")
}

/// What the user should know about such a test.
pub(crate) fn notes() -> Vec<String> {
    let note = format!("{ON_HOST}: a TEST without GPUs; NCCL and the driver are stand-ins on the host's memory");
    on_host().then_some(note).into_iter().collect()
}

/// Finds this rank's host, cores, GPUs and NCCL, as far as the request needs them.
///
/// # Errors
/// There are GPUs that this process cannot use.
pub(crate) fn look(request: &Request) -> Result<Found> {
    let gpus = match request.compute {
        Compute::Cpu => vec![],
        Compute::Auto => match visible_gpus()? {
            0 => vec![],
            seen => {
                let gpus = gpu::all()?;
                ensure!(gpus.len() == seen, "libtorch sees {seen} GPUs, the driver {}", gpus.len());
                gpus
            }
        },
    };
    let tried = request.backend != Backend::Mpi && !gpus.is_empty();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("unknown").trim();
    let threads = env::var("OMP_NUM_THREADS").ok().and_then(|text| text.trim().parse().ok());
    Ok(Found {
        host: host_name(),
        kernel: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_string(),
        without_nccl: if tried { nccl::check(on_host()).err() } else { None },
        gpus,
        timeout: env::var(Limits::VARIABLE).ok(),
        cores: (cores.to_string(), thread::available_parallelism().map_or(1, usize::from)),
        threads: threads.filter(|&count| count > 0),
    })
}

/// Sets what NCCL needs to let ranks share a GPU, and says so. Before its first call, which reads all of it once.
pub(crate) fn share_gpus(rank: usize, one_host: bool) -> String {
    format!("comm.share_gpus sets {}", set(&sharing_variables(rank, one_host)))
}

/// Has NCCL keep the order in which this program calls its two communicators, unless the environment says otherwise, and says so.
/// Before its first call.
pub(crate) fn order_sums() -> Option<String> {
    env::var_os(nccl::ORDER).is_none().then(|| format!("comm.in_graphs sets {}", set(&[(nccl::ORDER, "1".into())])))
}

/// Sets variables, and returns them as on a command line.
fn set(variables: &[(&str, String)]) -> String {
    for (name, value) in variables {
        // SAFETY: threads of this program read variables under the lock that this takes; those of MPI have read theirs when it
        // was initialised, and libtorch has started none yet.
        unsafe { env::set_var(name, value) };
    }
    let set: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    set.join(" ")
}

/// The number of GPUs this process can use; 0 on a machine without any.
///
/// # Errors
/// A [`Refusal`](crate::Refusal) where there is an NVIDIA driver but libtorch's CUDA half does not load or sees no GPU: such a
/// machine never runs on the CPU unasked.
pub fn visible_gpus() -> Result<usize> {
    if on_host() {
        return Ok(gpu::all()?.len());
    }
    let hidden = env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|list| list.is_empty() || list == "-1");
    let Some(driver) = Driver::find(&root()).filter(|_| !hidden) else { return Ok(0) };
    // First of all CUDA questions: libtorch remembers the first answer.
    torch_ext::load_cuda().map_err(|reason| driver::not_loaded(&reason))?;
    match tch::Cuda::device_count() {
        count if count > 0 => Ok(count as usize),
        _ => Err(driver.refusal(torch_ext::cuda_version(), gpu::cuda_of_driver()).into()),
    }
}

/// Where the files of the system lie; the tests of this program pretend a driver.
fn root() -> PathBuf {
    env::var_os(PRETENDED_ROOT).map_or_else(|| "/".into(), PathBuf::from)
}

/// This machine's name, as the kernel has it.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_string()
}
