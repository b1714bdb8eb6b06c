//! The choice of a GPU for each rank and of the transport between them: a pure function of what all ranks found.

use super::found::Found;
use super::plural::plural;
use crate::gpu::Gpu;
use crate::nccl::Limits;
use crate::refusal::Refusal;
use crate::request::{Backend, Compute, Request};

/// What all ranks do, decided by each of them in the same way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The number of each rank's GPU among those it sees; none computes on the CPU.
    pub(crate) gpus: Vec<Option<usize>>,
    /// Whether tensors travel by NCCL.
    pub(crate) nccl: bool,
    /// Whether ranks share a GPU.
    pub(crate) shared: bool,
    /// What the user should be told.
    pub(crate) notes: Vec<String>,
}

/// Decides for all ranks. `launched`: an MPI launcher started them.
///
/// # Errors
/// A request that these machines cannot meet.
pub(crate) fn assign(found: &[Found], request: &Request, launched: bool) -> Result<Plan, Refusal> {
    let without: Vec<usize> = (0..found.len()).filter(|&rank| found[rank].gpus.is_empty()).collect();
    if without.len() == found.len() {
        return on_cpus(found.len(), request);
    }
    if let Some(&first) = without.first() {
        return Err(some_without_gpus(found, first, without.len()));
    }
    let nccl = match request.backend {
        Backend::Auto => launched,
        Backend::Nccl => true,
        Backend::Mpi => false,
    };
    let gpus = (0..found.len()).map(|rank| number(found, rank, request.share_gpus)).collect::<Result<Vec<_>, _>>()?;
    let twice = duplicate(found, &gpus, nccl);
    if let Some((first, second)) = twice.filter(|_| !request.share_gpus) {
        return Err(one_gpu_for_two(&found[second], gpus[second], [first, second]));
    }
    if nccl {
        check_nccl(found, request.backend)?;
    }
    let shared = twice.is_some();
    let mut notes = vec![];
    if shared {
        notes.push(
            "comm.share_gpus: ranks SHARE a GPU. This is for tests of the program; its timings mean nothing".into(),
        );
    }
    if !nccl && found.len() > 1 {
        notes.push("comm.backend = \"mpi\": sums over ranks go through the memory of the hosts, which is slow".into());
    }
    Ok(Plan { gpus: gpus.into_iter().map(Some).collect(), nccl, shared, notes })
}

fn refuse(value: impl Into<String>, expected: impl Into<String>, hint: &str) -> Refusal {
    Refusal { key: "comm.backend", value: value.into(), expected: expected.into(), hint: hint.into() }
}

/// The plan of ranks without GPUs.
fn on_cpus(ranks: usize, request: &Request) -> Result<Plan, Refusal> {
    let wanted = request.backend.name();
    match (request.backend, request.compute) {
        (Backend::Nccl, Compute::Cpu) => {
            Err(refuse(wanted, "\"auto\" or \"mpi\" with --device cpu: NCCL is for GPUs", "leave one of them out"))
        }
        (Backend::Nccl, Compute::Auto) => Err(refuse(
            format!("{wanted}, and no rank sees a GPU"),
            "a GPU for every rank",
            "check `nvidia-smi` and CUDA_VISIBLE_DEVICES on the hosts; without GPUs, set comm.backend = \"auto\"",
        )),
        _ => Ok(Plan { gpus: vec![None; ranks], nccl: false, shared: false, notes: vec![] }),
    }
}

fn some_without_gpus(found: &[Found], first: usize, without: usize) -> Refusal {
    let (ranks, host) = (found.len(), &found[first].host);
    Refusal {
        key: "--device",
        value: format!("auto, and {without} of {ranks} ranks see no GPU (rank {first} on {host} is the first)"),
        expected: "GPUs for all ranks or for none".into(),
        hint: "start ranks on hosts with GPUs only, or give --device cpu".into(),
    }
}

fn one_gpu_for_two(found: &Found, gpu: usize, [first, second]: [usize; 2]) -> Refusal {
    let Gpu { uuid, pci, .. } = &found.gpus[gpu];
    Refusal {
        key: "the GPU",
        value: format!("the same for ranks {first} and {second}: {uuid} at {pci} of {}", found.host),
        expected: "a GPU of its own for every rank".into(),
        hint: format!(
            "look at what mpirun or srun makes visible to each rank (CUDA_VISIBLE_DEVICES, --gpus-per-task): every rank its own, \
             or all of the host's to all; {SHARING}"
        ),
    }
}

/// Makes sure that every rank can use NCCL.
fn check_nccl(found: &[Found], backend: Backend) -> Result<(), Refusal> {
    let lacking = (0..).zip(found).find_map(|(rank, one)| Some((rank, one, one.without_nccl.as_ref()?)));
    if let Some((rank, one, reason)) = lacking {
        return Err(refuse(
            backend.name(),
            format!("NCCL; on rank {rank} ({}) it does not load: {reason}", one.host),
            "run scripts/setup and build again, put the folder of libnccl.so on LD_LIBRARY_PATH, or set comm.backend = \"mpi\"",
        ));
    }
    match found.iter().find_map(|one| Some((one, Limits::new(one.timeout.as_deref()).err()?))) {
        None => Ok(()),
        Some((one, expected)) => Err(Refusal {
            key: Limits::VARIABLE,
            value: format!("{:?} on {}", one.timeout.as_deref().unwrap_or_default(), one.host),
            expected: expected.into(),
            hint: "correct it, or unset it for the usual 300 s to connect and 600 s for a sum".into(),
        }),
    }
}

const SHARING: &str = "to test the program with several ranks on one GPU, set comm.share_gpus = true";

/// The number of this rank's GPU: its position among the ranks that see the same ones. That is 0 where the launcher shows each
/// rank a GPU of its own, and the local rank where all ranks of a host see all GPUs.
fn number(found: &[Found], rank: usize, share: bool) -> Result<usize, Refusal> {
    let mine = &found[rank];
    let same = |other: &&Found| other.is_beside(mine) && other.gpus == mine.gpus;
    let place = found[..rank].iter().filter(same).count();
    let gpus = mine.gpus.len();
    if place < gpus || share {
        return Ok(place % gpus);
    }
    Err(Refusal {
        key: "the number of ranks",
        value: format!(
            "{} on {}, for {gpus} visible GPU{}",
            found.iter().filter(same).count(),
            mine.host,
            plural(gpus)
        ),
        expected: "at most one rank for each GPU".into(),
        hint: format!(
            "start {gpus} on this host (`mpirun --map-by ppr:{gpus}:node`, `srun --ntasks-per-node={gpus}`, or `--ranks {gpus}`); \
             {SHARING}"
        ),
    })
}

/// The first two ranks with the same GPU. NCCL refuses parts of one GPU too; they have their own identity, but not place.
fn duplicate(found: &[Found], gpus: &[usize], nccl: bool) -> Option<(usize, usize)> {
    let of = |rank: usize| &found[rank].gpus[gpus[rank]];
    let same = |one: usize, other: usize| {
        let at_one_place = nccl && found[one].is_beside(&found[other]) && of(one).pci == of(other).pci;
        of(one).uuid == of(other).uuid || at_one_place
    };
    let ranks = 0..found.len();
    ranks.clone().find_map(|second| Some((ranks.clone().take(second).find(|&first| same(first, second))?, second)))
}
