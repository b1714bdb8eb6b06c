//! MPI, libtorch, CUDA, NCCL and HDF5.

use std::fs;
use std::process::Command;

use comm::Libraries;

use super::finding::{Finding, error, ok, warning};
use crate::start;

/// The findings of this process.
pub(super) fn findings() -> Vec<Finding> {
    let libraries = Libraries::look();
    let gpus = libraries.gpus.clone().unwrap_or(0);
    vec![
        mpi(&libraries),
        ok("libtorch", libraries.torch.clone()),
        graphics(&libraries),
        nccl(&libraries, gpus),
        ok("hdf5", datasets::hdf5_version()),
    ]
}

/// The library that the program loads, beside the mpirun that it would start.
fn mpi(libraries: &Libraries) -> Finding {
    let library = match &libraries.mpi {
        Ok(library) => library,
        Err(refusal) => {
            return error(
                "mpi",
                format!("the program has loaded {}, not {}", refusal.value, refusal.expected),
                &refusal.hint,
            );
        }
    };
    let mpirun = start::mpirun();
    let output = Command::new(&mpirun).arg("--version").output();
    let said = match output {
        // Open MPI's first line has the version, Hydra's second.
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let line = said.lines().find(|line| version_in(line).is_some()).unwrap_or_default();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        }
        Err(problem) => {
            return warning(
                "mpi",
                format!("{library}; {mpirun} does not start: {problem}"),
                "install Open MPI's programs, or set IAD_MPIRUN to its mpirun; srun --mpi=pmix needs none",
            );
        }
    };
    let (Some(own), Some(other)) = (version_in(library), version_in(&said)) else {
        return ok("mpi", format!("{library}; {mpirun}"));
    };
    if own == other {
        ok("mpi", format!("{library}; {mpirun} is of the same version"))
    } else {
        error(
            "mpi",
            format!("the program uses {library}, and {mpirun} is {said}"),
            "set IAD_MPIRUN to the mpirun of that library, or load the module that the program was built with",
        )
    }
}

/// The first number with a dot in it, as in `v4.1.4`.
fn version_in(text: &str) -> Option<String> {
    let words = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    words.map(|word| word.trim_matches('.')).find(|word| word.contains('.')).map(str::to_string)
}

fn graphics(libraries: &Libraries) -> Finding {
    let driver = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let driver = driver.and_then(|text| version_in(text.lines().next()?));
    match (&libraries.gpus, driver) {
        (Ok(0), None) => ok("gpu", "none, and no NVIDIA driver: runs compute on the CPU"),
        (Ok(0), Some(driver)) => warning(
            "gpu",
            format!("driver {driver}, and no GPU is visible"),
            "see CUDA_VISIBLE_DEVICES, and ask the scheduler for GPUs",
        ),
        (Ok(count), driver) => {
            ok("gpu", format!("{count} that libtorch can use, driver {}", driver.unwrap_or_else(|| "unknown".into())))
        }
        (Err(problem), driver) => error(
            "gpu",
            format!("driver {}: {problem}", driver.unwrap_or_else(|| "unknown".into())),
            "`scripts/setup --cuda` fetches the CUDA half of libtorch; --device cpu computes without it",
        ),
    }
}

fn nccl(libraries: &Libraries, gpus: usize) -> Finding {
    match &libraries.nccl {
        Ok(version) => ok("nccl", version.clone()),
        Err(_) if gpus == 0 => ok("nccl", "not there, and not needed without GPUs"),
        Err(problem) => warning(
            "nccl",
            format!("does not load: {problem}"),
            "`scripts/setup --cuda` links the NCCL of PyTorch; without it gradients travel over the host (comm.backend = \"mpi\")",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_libraries_say() {
        for (text, version) in [
            ("Open MPI v4.1.4", "4.1.4"),
            ("mpirun (Open MPI) 4.1.4", "4.1.4"),
            ("Version: 4.0.2", "4.0.2"),
            ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue", "535.54.03"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version));
        }
        assert_eq!(version_in("MPICH"), None);
    }

    #[test]
    fn a_driver_without_cuda_is_an_error_and_missing_nccl_matters_to_gpus_alone() {
        let found = |gpus, nccl| Libraries { torch: String::new(), mpi: Ok(String::new()), nccl, gpus };
        let broken = found(Err("libtorch_cuda does not load".into()), Ok("2".into()));
        assert!(graphics(&broken).next.unwrap().contains("scripts/setup --cuda"));
        let without = found(Ok(0), Err("no such file".into()));
        assert_eq!(nccl(&without, 0).next, None);
        assert!(nccl(&without, 2).next.unwrap().contains("comm.backend"));
    }
}
