//! The same program built with MPICH, beside the one of this build (Open MPI): equal results, stops, and launchers that
//! do not fit. `scripts/check-mpich` builds it and names it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tests::{Images, Program, World, has_done};

/// Hydra, MPICH's launcher.
const MPIRUN: &str = "mpirun.mpich";

fn built_with_mpich() -> Result<PathBuf> {
    std::env::var_os("IAD_MPICH_PROGRAM").map(PathBuf::from).context("scripts/check-mpich starts these tests")
}

fn config(world: &World, epochs: &str) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    world.config("config", &data, &[("epochs", epochs)])
}

fn final_weights(run: &Path) -> Result<Vec<u8>> {
    let file = run.join("checkpoints/final.safetensors");
    fs::read(&file).with_context(|| format!("reading {}", file.display()))
}

#[test]
#[ignore = "needs a program built with MPICH: scripts/check-mpich"]
fn a_run_over_mpich_is_that_over_open_mpi_and_stops_and_resumes() -> Result<()> {
    let (program, world) = (built_with_mpich()?, World::new()?);
    let config = config(&world, "100")?;
    let (whole, stopped) = (world.run("open-mpi"), world.run("mpich"));
    Program::under_mpirun(2).train(&config, &whole).run()?.expect(0);
    for request in ["USR1", "TERM"] {
        let before = steps(&stopped);
        let mut running = Program::of(&program).train(&config, &stopped).starting_ranks(2).start()?;
        running.wait_until("steps", || has_done(&stopped, before + 3))?;
        running.signal(request, &[running.process()]);
        let ended = running.wait()?.expect(85);
        assert!(!ended.said.contains("BAD TERMINATION"), "{}", ended.said);
    }
    let ended = Program::of_by(&program, MPIRUN, 2).train(&config, &stopped).run()?.expect(0);
    assert!(ended.said.contains("going on from step"), "{}", ended.said);
    assert!(final_weights(&whole)? == final_weights(&stopped)?, "MPICH and Open MPI train other weights");
    Ok(())
}

/// Steps recorded so far.
fn steps(run: &Path) -> u64 {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    metrics.lines().filter(|line| line.contains("\"event\":\"step\"")).count() as u64
}

#[test]
#[ignore = "needs a program built with MPICH: scripts/check-mpich"]
fn a_launcher_of_the_other_mpi_is_refused_by_both() -> Result<()> {
    let (program, world) = (built_with_mpich()?, World::new()?);
    let config = config(&world, "1")?;
    let run = world.run("run");
    let by_open_mpi = Program::of_by(&program, option_env!("IAD_MPIRUN").unwrap_or("mpirun"), 2).train(&config, &run);
    by_open_mpi.run()?.expect_error(&["2 copies of this program", "OMPI_COMM_WORLD_SIZE", MPIRUN]);
    let own = std::env::current_exe()?;
    let own = own.parent().and_then(Path::parent).context("a folder of the target")?.join("iad-launch");
    let by_mpich = Program::of_by(&own, MPIRUN, 2).train(&config, &run);
    by_mpich.run()?.expect_error(&["2 copies of this program", "PMI_SIZE", "mpirun"]);
    assert!(!run.join("checkpoints").exists(), "something was trained");
    Ok(())
}

#[test]
#[ignore = "needs a program built with MPICH: scripts/check-mpich"]
fn the_doctor_names_mpich() -> Result<()> {
    let (program, world) = (built_with_mpich()?, World::new()?);
    let doctor = Program::of(&program).args(["doctor".as_ref(), "--runs".as_ref(), world.path("runs").as_os_str()]);
    let said = doctor.run()?.expect(0).said;
    assert!(said.contains("ok       mpi") && said.contains("MPICH Version"), "{said}");
    Ok(())
}
