//! What one rank found on its machine.

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;

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

    /// The threads of this rank: the number that the user set, else its cores divided by the ranks that may use the same
    /// cores. This is right whether a launcher bound the ranks to cores or sockets, a container limits them, or neither.
    pub(crate) fn threads_among(&self, all: &[Self]) -> usize {
        let sharers = all.iter().filter(|other| other.host == self.host && other.cores.0 == self.cores.0).count();
        self.threads.unwrap_or_else(|| (self.cores.1 / sharers.max(1)).max(1))
    }
}
