//! The libraries that a run needs, as this process finds them.

use mpi::environment::library_version;

use crate::{machine, nccl};

/// What was found. A library that does not load tells why.
#[derive(Debug, Clone)]
pub struct Libraries {
    /// The version of libtorch.
    pub torch: String,
    /// The first line of what the MPI library calls itself.
    pub mpi: String,
    /// The version of NCCL.
    pub nccl: Result<String, String>,
    /// The number of GPUs that libtorch can use.
    pub gpus: Result<usize, String>,
}

impl Libraries {
    /// Asks each library. MPI need not be initialised.
    pub fn look() -> Self {
        let mpi = library_version().unwrap_or_default();
        Self {
            torch: torch_ext::version(),
            mpi: mpi.split([',', '\n']).next().unwrap_or_default().trim_matches(['\0', ' ']).to_string(),
            nccl: nccl::check(machine::on_host()).map(|()| nccl::version()),
            gpus: machine::visible_gpus().map_err(|error| format!("{error:#}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_this_build_have_names() {
        let found = Libraries::look();
        assert!(found.torch.starts_with(|first: char| first.is_ascii_digit()), "{found:?}");
        assert!(found.mpi.contains("MPI"), "{found:?}");
    }
}
