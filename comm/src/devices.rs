//! Which device each rank takes and by which transport tensors travel: a pure function of what all ranks found.

use std::fmt;

use serde::{Deserialize, Serialize};
use tch::Device;

use crate::gpu::Gpu;
use crate::nccl::Limits;
use crate::{Backend, Compute, Request};

/// What one rank found on its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    /// The machine's name.
    pub(crate) host: String,
    /// What tells its kernel from others, whatever their names.
    pub(crate) kernel: String,
    /// The GPUs that this rank may use.
    pub(crate) gpus: Vec<Gpu>,
    /// Why NCCL cannot be loaded, where it was tried and cannot.
    pub(crate) without_nccl: Option<String>,
    /// The value of the variable that limits NCCL's time.
    pub(crate) timeout: Option<String>,
    /// The cores this rank may use, as the kernel lists them, and how many they are.
    pub(crate) cores: (String, usize),
    /// The threads that the user wants.
    pub(crate) threads: Option<usize>,
}

/// What the user asked for and cannot have here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The key or variable that asks.
    pub key: &'static str,
    /// What stands there, or what was found.
    pub value: String,
    /// What was expected.
    pub expected: String,
    /// The way out.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} is {}; expected {}\n  next: {}", self.key, self.value, self.expected, self.hint)
    }
}

impl std::error::Error for Refusal {}

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
/// What was asked for cannot be had.
pub(crate) fn assign(found: &[Found], request: &Request, launched: bool) -> Result<Plan, Refusal> {
    let wanted = request.backend.name();
    let refuse = |value: String, expected: &str, hint: &str| {
        Err(Refusal { key: "comm.backend", value, expected: expected.into(), hint: hint.into() })
    };
    let without: Vec<usize> = (0..found.len()).filter(|&rank| found[rank].gpus.is_empty()).collect();
    if without.len() == found.len() {
        return match (request.backend, request.compute) {
            (Backend::Nccl, Compute::Cpu) => refuse(
                wanted.into(),
                "\"auto\" or \"mpi\" with --device cpu: NCCL is for GPUs",
                "leave one of them out",
            ),
            (Backend::Nccl, Compute::Auto) => refuse(
                format!("{wanted}, and no rank sees a GPU"),
                "a GPU for every rank",
                "check `nvidia-smi` and CUDA_VISIBLE_DEVICES on the hosts; without GPUs, set comm.backend = \"auto\"",
            ),
            _ => Ok(Plan { gpus: vec![None; found.len()], nccl: false, shared: false, notes: vec![] }),
        };
    }
    if !without.is_empty() {
        let first = without[0];
        return Err(Refusal {
            key: "--device",
            value: format!(
                "auto, and {} of {} ranks see no GPU (rank {first} on {} is the first)",
                without.len(),
                found.len(),
                found[first].host
            ),
            expected: "GPUs for all ranks or for none".into(),
            hint: "start ranks on hosts with GPUs only, or give --device cpu".into(),
        });
    }
    let nccl = match request.backend {
        Backend::Auto => launched,
        Backend::Nccl => true,
        Backend::Mpi => false,
    };
    let gpus = (0..found.len()).map(|rank| number(found, rank, request.share_gpus)).collect::<Result<Vec<_>, _>>()?;
    let twice = duplicate(found, &gpus, nccl);
    if let Some((first, second)) = twice.filter(|_| !request.share_gpus) {
        let Gpu { uuid, pci, .. } = &found[second].gpus[gpus[second]];
        return Err(Refusal {
            key: "the GPU",
            value: format!("the same for ranks {first} and {second}: {uuid} at {pci} of {}", found[second].host),
            expected: "a GPU of its own for every rank".into(),
            hint: format!(
                "look at what mpirun or srun makes visible to each rank (CUDA_VISIBLE_DEVICES, --gpus-per-task): every rank its own, \
                 or all of the host's to all; {SHARING}"
            ),
        });
    }
    if nccl {
        if let Some((rank, reason)) = (0..).zip(found).find_map(|(rank, one)| Some((rank, one.without_nccl.as_ref()?)))
        {
            return refuse(
                wanted.into(),
                &format!("NCCL; on rank {rank} ({}) it does not load: {reason}", found[rank].host),
                "run scripts/setup and build again, put the folder of libnccl.so on LD_LIBRARY_PATH, or set comm.backend = \"mpi\"",
            );
        }
        let wrong = found.iter().find_map(|one| Some((one, Limits::new(one.timeout.as_deref()).err()?)));
        if let Some((one, expected)) = wrong {
            return Err(Refusal {
                key: Limits::VARIABLE,
                value: format!("{:?} on {}", one.timeout.as_deref().unwrap_or_default(), one.host),
                expected: expected.into(),
                hint: "correct it, or unset it for the usual 300 s to connect and 600 s for a sum".into(),
            });
        }
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

const SHARING: &str = "to test the program with several ranks on one GPU, set comm.share_gpus = true";

/// The number of this rank's GPU: its place among the ranks that see the same ones. That is 0 where the launcher shows each
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

impl Found {
    /// Whether both ranks are on the same machine.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        (&self.host, &self.kernel) == (&other.host, &other.kernel)
    }

    /// The host and the GPU of that number, in words.
    pub(crate) fn at(&self, gpu: Option<usize>) -> String {
        let device = match gpu.map(|number| (number, &self.gpus[number])) {
            None => "CPU".to_string(),
            Some((number, Gpu { name, uuid, pci, numa })) => {
                let numa = numa.map_or(String::new(), |node| format!(", NUMA node {node}"));
                format!("GPU {number} ({name}, {uuid}, {pci}{numa})")
            }
        };
        format!("{}: {device}", self.host)
    }

    /// The threads of this rank: what the user wants, else its cores divided by the ranks that may use the same ones. Right
    /// whether a launcher bound the ranks to cores or sockets, a container limits them, or nobody did.
    pub(crate) fn threads_among(&self, all: &[Self]) -> usize {
        let sharers = all.iter().filter(|other| other.host == self.host && other.cores.0 == self.cores.0).count();
        self.threads.unwrap_or_else(|| (self.cores.1 / sharers.max(1)).max(1))
    }
}

/// One line for each rank: where it computes, and with what.
pub(crate) fn places(found: &[Found], plan: &Plan) -> Vec<String> {
    let place = |(one, gpu): (&Found, &Option<usize>)| {
        let threads = one.threads_among(found);
        format!("{}, cores {}, {threads} thread{}", one.at(*gpu), one.cores.0, plural(threads))
    };
    found.iter().zip(&plan.gpus).map(place).collect()
}

/// What is shown of the places: all of them up to 16, a line for each host above.
pub(crate) fn map(found: &[Found], plan: &Plan) -> Vec<String> {
    if found.len() <= 16 {
        let places = places(found, plan);
        return places.iter().enumerate().map(|(rank, place)| format!("rank {rank} on {place}")).collect();
    }
    let mut hosts: Vec<(&Found, Vec<usize>)> = vec![];
    for (rank, one) in found.iter().enumerate() {
        match hosts.iter_mut().find(|(first, _)| first.is_beside(one)) {
            Some((_, ranks)) => ranks.push(rank),
            None => hosts.push((one, vec![rank])),
        }
    }
    let host = |(first, ranks): (&Found, Vec<usize>)| {
        let mut devices: Vec<String> = vec![];
        for &rank in &ranks {
            let name = plan.gpus[rank].map_or("CPU", |number| found[rank].gpus[number].name.as_str()).to_string();
            if !devices.contains(&name) {
                devices.push(name);
            }
        }
        let threads: usize = ranks.iter().map(|&rank| found[rank].threads_among(found)).sum();
        let word = if ranks.len() == 1 { "rank" } else { "ranks" };
        format!("{word} {} on {}: {}, {threads} threads in all", spans(&ranks), first.host, devices.join(" and "))
    };
    hosts.into_iter().map(host).collect()
}

/// `0-3,8` of 0, 1, 2, 3, 8.
fn spans(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|left, right| left + 1 == *right);
    let text = runs.map(|run| match run {
        [one] => one.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    text.collect::<Vec<_>>().join(",")
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// The device in libtorch's words. With `on_host` the GPUs are those of a stand-in, and tensors live on the CPU.
pub(crate) fn device(gpu: Option<usize>, on_host: bool) -> Device {
    gpu.filter(|_| !on_host).map_or(Device::Cpu, Device::Cuda)
}

/// What several ranks on one GPU need of NCCL, which refuses them otherwise: each poses as a host of its own, and they talk
/// through sockets. `one_host`: all ranks are on it.
pub(crate) fn sharing_variables(rank: usize, one_host: bool) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("NCCL_HOSTID", format!("iad-rank-{rank}")),
        ("NCCL_IB_DISABLE", "1".to_string()),
        ("NCCL_MNNVL_ENABLE", "0".to_string()),
        ("NCCL_ALGO", "Ring".to_string()),
        ("NCCL_PROTO", "Simple".to_string()),
    ];
    if one_host && std::env::var_os("NCCL_SOCKET_IFNAME").is_none() {
        variables.push(("NCCL_SOCKET_IFNAME", "lo".to_string()));
    }
    variables
}

#[cfg(test)]
mod tests;
