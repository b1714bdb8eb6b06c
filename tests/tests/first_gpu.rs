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
    arguments_for(2, name, Ok)
}

/// The arguments of that mpirun for so many ranks of the `changed` program.
fn arguments_for(ranks: usize, name: &str, changed: impl Fn(Program) -> Result<Program>) -> Result<Vec<String>> {
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
    changed(program)?.train(&config, &world.run("run")).starting_ranks(ranks).run()?.expect(0);
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

/// What the test program says of binding, and of where ranks start, is taken back.
fn without_choice(program: Program) -> Program {
    let ours = ["OMPI_MCA_hwloc_base_binding_policy", "PRTE_MCA_rmaps_default_mapping_policy", "SLURM_JOB_ID"];
    ours.into_iter().fold(program, Program::without)
}

#[test]
fn ranks_that_the_program_starts_are_bound_to_cores_where_there_are_enough() -> Result<()> {
    const OPEN_MPI: &str = "mpirun (Open MPI) 4.1.4";
    let before_program = |arguments: Vec<String>| -> Vec<String> {
        arguments.into_iter().take_while(|argument| !argument.ends_with("iad-launch")).collect()
    };
    let after = |arguments: &[String], name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).cloned()
    };
    let bound = |ranks, name| {
        Ok::<_, anyhow::Error>(before_program(arguments_for(ranks, name, |one| Ok(without_choice(one)))?))
    };
    // A machine of tests may be a part of one, where nothing is bound; the doctor says which it is.
    let doctor = without_choice(Program::alone()).args(["doctor"]).run()?;
    if let Some(cores) = doctor.said.split("binds each rank to ").nth(1) {
        let cores: usize = cores.split(' ').next().unwrap_or_default().parse()?;
        let share = cores / 2;
        let arguments = bound(2, OPEN_MPI)?;
        assert_eq!(after(&arguments, "--map-by"), Some(format!("slot:PE={share}")), "{arguments:?}");
        assert_eq!(after(&arguments, "--bind-to").as_deref(), Some("core"), "{arguments:?}");
        assert!(!arguments.contains(&"--oversubscribe".into()), "{arguments:?}");
        let arguments = bound(2, "HYDRA build details")?;
        assert_eq!(after(&arguments, "--bind-to"), Some(format!("core:{share}")), "{arguments:?}");
    } else {
        assert!(doctor.said.contains("binds no rank") || doctor.said.contains("and more to none"), "{}", doctor.said);
    }
    let arguments = bound(4096, OPEN_MPI)?;
    assert_eq!(after(&arguments, "--bind-to").as_deref(), Some("none"), "{arguments:?}");
    assert!(arguments.contains(&"--oversubscribe".into()), "{arguments:?}");
    // The test program chooses by a variable: the command line says nothing else.
    let arguments = before_program(arguments_for(2, OPEN_MPI, Ok)?);
    assert!(!arguments.iter().any(|argument| argument == "--bind-to" || argument == "--map-by"), "{arguments:?}");
    Ok(())
}
