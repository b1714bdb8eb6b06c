//! The libraries that a run needs, as this process finds them.

use mpi::environment::library_version;

use crate::{Refusal, machine, mpi_family, nccl};

/// What was found. A library that does not load tells why.
#[derive(Debug, Clone)]
pub struct Libraries {
    /// The version of libtorch.
    pub torch: String,
    /// What the MPI library calls itself, or why it does not fit this program.
    pub mpi: Result<String, Refusal>,
    /// The version of NCCL.
    pub nccl: Result<String, String>,
    /// The number of GPUs that libtorch can use.
    pub gpus: Result<usize, String>,
}

impl Libraries {
    /// Asks each library. MPI need not be initialised.
    pub fn look() -> Self {
        Self {
            torch: torch_ext::version(),
            mpi: mpi_family::check().map(|()| mpi_family::name_of(&library_version().unwrap_or_default())),
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
        assert!(found.mpi.as_ref().is_ok_and(|name| name.contains("MPI")), "{found:?}");
    }
}
