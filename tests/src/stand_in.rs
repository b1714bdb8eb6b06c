//! Running the program on a stand-in for NCCL and the CUDA driver, which `build.rs` compiles from `stand-in/`.

use std::path::{Path, PathBuf};

use crate::Program;

/// The folder of the stand-in: `libnccl.so`, and `libcuda.so` as a second name of it.
pub fn stand_in() -> &'static Path {
    Path::new(env!("IAD_STAND_IN"))
}

/// The folder of the same stand-in as an NCCL from before 2.27, without windows.
pub fn stand_in_without_windows() -> &'static Path {
    Path::new(env!("IAD_STAND_IN_WITHOUT_WINDOWS"))
}

impl Program {
    /// With a stand-in for GPUs: tensors stay in the memory of the host, and everything else runs as with NCCL.
    pub fn with_stand_in(self) -> Self {
        self.with_libraries(stand_in())
    }

    /// As [`with_stand_in`](Self::with_stand_in), with the libraries of another folder.
    pub fn with_libraries(self, folder: &Path) -> Self {
        let others = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let folders = std::iter::once(PathBuf::from(folder)).chain(std::env::split_paths(&others));
        let folders = std::env::join_paths(folders).unwrap_or_else(|_| folder.into());
        self.variable("IAD_TEST_NCCL_ON_HOST", "1").variable("LD_LIBRARY_PATH", &folders.to_string_lossy())
    }

    /// The GPUs that ranks see, as in `0 1;1`: 0 and 1 on rank 0, 1 on all others.
    pub fn gpus(self, visible: &str) -> Self {
        self.variable("IAD_STAND_IN_GPUS", visible)
    }

    /// The fault to inject, in the words of `stand-in/nccl.c`.
    pub fn fault(self, fault: &str) -> Self {
        self.variable("IAD_STAND_IN_FAULT", fault)
    }

    /// The seconds after which NCCL counts as hanging.
    pub fn patience(self, seconds: u32) -> Self {
        self.variable("IAD_NCCL_TIMEOUT", &seconds.to_string())
    }

    /// The folder into which each rank's calls of NCCL and the driver are written, as `rank-N`.
    pub fn trace(self, folder: &Path) -> Self {
        self.variable("IAD_STAND_IN_TRACE", &folder.to_string_lossy())
    }
}
