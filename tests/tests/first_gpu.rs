//! The first day on machines with GPUs, without one: pretended drivers, and the command line that starts ranks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use tests::{Ended, Images, Program, World};

/// Trains alone on a machine whose system files lie under `root`; the tests' usual hiding of GPUs is off.
fn on_machine(world: &World, root: &Path) -> Result<Ended> {
    let data = world.images("data", Images::colour(32))?;
    let config = world.config("short", &data, &[("evaluation.suite", "[]")])?;
    let program = Program::alone().without("CUDA_VISIBLE_DEVICES").variable("IAD_TEST_ROOT", &root.to_string_lossy());
    program.train(&config, &world.run("run")).stop_after(1).run()
}

#[test]
fn a_gpu_that_libtorch_cannot_use_is_an_error_and_no_run_on_the_cpu() -> Result<()> {
    let world = World::new()?;
    let root = world.path("machine");
    fs::create_dir_all(root.join("proc/driver/nvidia"))?;
    let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\n";
    fs::write(root.join("proc/driver/nvidia/version"), version)?;
    // The set-up of a machine without GPUs may lack libtorch's CUDA half; both are told, and neither computes.
    let ended = on_machine(&world, &root)?.expect(2);
    let old = ["535.183.01", "driver 580 or newer", "--device cpu"];
    let incomplete = ["libtorch_cuda does not load", "scripts/setup --cuda", "--device cpu"];
    let says = |parts: &[&str]| parts.iter().all(|part| ended.said.contains(part));
    assert!(says(&old) || says(&incomplete), "{}", ended.said);
    assert!(!world.run("run").join("metrics.jsonl").exists(), "it trained on the CPU");
    Ok(())
}

#[test]
fn a_container_without_the_kernels_file_shows_its_gpu_by_the_device() -> Result<()> {
    let world = World::new()?;
    let root = world.path("machine");
    fs::create_dir_all(root.join("dev"))?;
    fs::write(root.join("dev/nvidiactl"), "")?;
    let ended = on_machine(&world, &root)?.expect(2);
    assert!(ended.said.contains("the driver of this machine's GPUs is "), "{}", ended.said);
    Ok(())
}

#[test]
fn without_a_driver_it_computes_on_the_cpu() -> Result<()> {
    let world = World::new()?;
    let root = world.path("machine");
    fs::create_dir_all(root.join("dev"))?;
    on_machine(&world, &root)?.expect(85);
    Ok(())
}

/// The arguments of mpirun for two ranks, from a pretended mpirun that calls itself `name`.
fn arguments_of_mpirun(name: &str) -> Result<Vec<String>> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(32))?;
    let config = world.config("short", &data, &[("evaluation.suite", "[]")])?;
    let (mpirun, seen) = (world.path("mpirun"), world.path("arguments"));
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{name}'; exit 0; fi\nprintf '%s\\n' \"$@\" > '{}'\n",
        seen.display()
    );
    fs::write(&mpirun, script)?;
    fs::set_permissions(&mpirun, fs::Permissions::from_mode(0o755))?;
    let program = Program::alone().variable("IAD_MPIRUN", &mpirun.to_string_lossy());
    let program = program.variable("NCCL_SOCKET_IFNAME", "eth0").variable("IAD_NCCL_TIMEOUT", "30");
    program.train(&config, &world.run("run")).starting_ranks(2).run()?.expect(0);
    Ok(fs::read_to_string(seen)?.lines().map(String::from).collect())
}

#[test]
fn variables_of_nccl_and_cuda_reach_the_ranks_of_other_nodes() -> Result<()> {
    let arguments = arguments_of_mpirun("mpirun (Open MPI) 4.1.4")?;
    let program = arguments.iter().position(|argument| argument.ends_with("iad-launch")).expect("the program");
    let exported: Vec<&str> =
        arguments[..program].windows(2).filter(|pair| pair[0] == "-x").map(|pair| pair[1].as_str()).collect();
    for name in ["NCCL_SOCKET_IFNAME", "IAD_NCCL_TIMEOUT", "IAD_PARENT", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"] {
        assert!(exported.contains(&name), "{name} is not among {exported:?}");
    }
    // MPICH and Intel MPI pass on the whole environment, and do not know `-x`.
    assert!(!arguments_of_mpirun("HYDRA build details")?.contains(&"-x".to_string()));
    Ok(())
}
