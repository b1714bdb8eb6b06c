//! Time limits, readers that go away, and surroundings that are missing.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tests::{Images, Program, World, has_done};

fn config(world: &World, epochs: &str) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    world.config("config", &data, &[("epochs", epochs)])
}

fn program() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    Ok(test.parent().and_then(|folder| folder.parent()).context("a folder of the target")?.join("iad-launch"))
}

#[test]
fn a_time_limit_ends_a_run_in_time_and_saved() -> Result<()> {
    let world = World::new()?;
    let config = config(&world, "100000")?;
    for (ranks, program) in [(1, Program::alone()), (2, Program::alone().starting_ranks(2))] {
        let (run, began) = (world.run(&format!("limited-{ranks}")), Instant::now());
        let ended = program.train(&config, &run).args(["--time-limit", "12s"]).run()?.expect(85);
        assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
        assert!(ended.said.contains("the time limit is near"), "{}", ended.said);
        assert!(has_done(&run, 1), "no step was done");
        assert!(fs::read_dir(run.join("checkpoints"))?.next().is_some(), "no checkpoint");
    }
    Ok(())
}

#[test]
fn the_end_of_a_slurm_job_is_a_time_limit() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, "100000")?, world.run("run"));
    // Half a minute is kept free.
    let ends = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 40;
    let program = Program::alone().train(&config, &run).variable("SLURM_JOB_END_TIME", &ends.to_string());
    let ended = program.limit(60).run()?.expect(85);
    assert!(ended.said.contains("the time limit is near"), "{}", ended.said);
    Ok(())
}

#[test]
fn a_reader_that_goes_away_fails_nothing() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, "1")?, world.run("run"));
    let mut command = Command::new(program()?);
    command.arg(&config).arg("--run").arg(&run).env("OMP_NUM_THREADS", "1");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Both pipes are closed before the first line.
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait()?.code(), Some(0));
    assert!(run.join("checkpoints/final.safetensors").is_file());
    Ok(())
}

#[test]
fn a_download_without_a_home_is_refused() -> Result<()> {
    let world = World::new()?;
    let program = Program::alone().args(["data", "fetch", "mnist"]).within(&world.path(""));
    let ended = program.without("HOME").without("IAD_CACHE").run()?.expect(2);
    ended.expect_error(&["HOME", "--cache FOLDER"]);
    assert!(!world.path(".cache").exists());
    Ok(())
}

#[test]
fn a_current_folder_that_is_gone_is_told() -> Result<()> {
    let world = World::new()?;
    let gone = world.path("gone");
    fs::create_dir(&gone)?;
    let script = format!("cd '{0}' && rmdir '{0}' && exec '{1}' --version", gone.display(), program()?.display());
    let output = Command::new("sh").args(["-c", &script]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("iad-launch: error: the current folder is gone"), "{said}");
    Ok(())
}
