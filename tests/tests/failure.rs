//! Faults while a run is under way: it ends in seconds, says why once, and keeps what it had.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tests::{Images, Program, World, assert_same_run, has_done, tell, tensors};

/// A configuration of many short steps, with a checkpoint every sixth.
fn long_run(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    world.config("long", &data, &[("epochs", "1000")])
}

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    found.sort();
    found
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Nothing where this user may not mount.
    fn mount(at: PathBuf, kibibytes: u32) -> Result<Option<Self>> {
        fs::create_dir_all(&at)?;
        let size = format!("size={kibibytes}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).output();
        Ok(mounted.is_ok_and(|mount| mount.status.success()).then_some(Self(at)))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Runs on a disk that holds one checkpoint and not two, on so many ranks.
fn full_disk(name: &str, ranks: usize) -> Result<()> {
    let world = World::new()?;
    let config = long_run(&world)?;
    let Some(disk) = SmallDisk::mount(world.path("disk"), 300)? else {
        tell(&format!("SKIPPED {name}: this user may not mount a small disk"));
        return Ok(());
    };
    let run = disk.0.join("run");
    // Two checkpoints of this network are too much for it, so the first stays.
    let ended = Program::on(ranks).train(&config, &run).run()?.expect(1);
    ended.expect_error(&["No space left on device", "/disk/run/"]);
    let kept = checkpoints(&run);
    assert!(!kept.is_empty(), "no checkpoint is left");
    for checkpoint in kept {
        tensors(&checkpoint)?;
    }
    let leftovers = fs::read_dir(run.join("checkpoints"))?.flatten();
    let partial: Vec<_> = leftovers.filter(|entry| entry.file_name().to_string_lossy().contains("partial")).collect();
    assert!(partial.is_empty(), "{partial:?}");
    Ok(())
}

#[test]
fn a_full_disk_ends_the_run_and_keeps_the_last_checkpoint() -> Result<()> {
    full_disk("a_full_disk_ends_the_run_and_keeps_the_last_checkpoint", 1)
}

#[test]
fn a_full_disk_ends_a_run_on_two_ranks() -> Result<()> {
    full_disk("a_full_disk_ends_a_run_on_two_ranks", 2)
}

#[test]
fn a_run_folder_that_cannot_be_made_is_named() -> Result<()> {
    let world = World::new()?;
    let config = long_run(&world)?;
    // Not even root makes a folder below a file.
    fs::write(world.path("file"), "")?;
    let ended = Program::alone().train(&config, &world.path("file/run")).run()?.expect(1);
    ended.expect_error(&["file/run"]);
    Ok(())
}

/// A gradient that is not finite, on so many ranks: the parameters explode in the third step, after a checkpoint.
fn explosion(ranks: usize) -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let changes =
        [("epochs", "3"), ("optimizer.lr", "1e30"), ("optimizer.lr_policy", "{ step = { at = [1], factor = 1e-30 } }")];
    let (config, run) = (world.config("explode", &data, &changes)?, world.run("run"));
    let stop = |steps| Program::on(ranks).train(&config, &run).stop_after(steps).run();
    stop(1)?.expect(85);
    let checkpoint = run.join("checkpoints/step-00000001.safetensors");
    let before = tensors(&checkpoint)?;
    let ended = Program::on(ranks).train(&config, &run).run()?.expect(1);
    let ended = ended.expect_error(&["step 2: the gradient is not finite", "optimizer.lr"]);
    assert!(ended.said.contains("conv") || ended.said.contains("label"), "neither tensor nor term: {}", ended.said);
    assert_eq!(before, tensors(&checkpoint)?);
    assert!(!run.join("checkpoints/final.safetensors").exists());
    // It starts from there again, to fail in the same place.
    Program::on(ranks).train(&config, &run).run()?.expect(1).expect_error(&["step 2: the gradient is not finite"]);
    Ok(())
}

#[test]
fn a_gradient_that_is_not_finite_ends_the_run_before_it_does_harm() -> Result<()> {
    explosion(1)
}

#[test]
fn a_gradient_that_is_not_finite_ends_all_ranks() -> Result<()> {
    explosion(2)
}

#[test]
fn a_second_start_in_the_same_folder_is_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(96))?;
    let config = world.config("shared", &data, &[("epochs", "30")])?;
    let (whole, run) = (world.run("whole"), world.run("shared"));
    let mut running = Program::alone().train(&config, &run).start()?;
    running.wait_until("step 1", || has_done(&run, 1))?;
    let second = Program::alone().train(&config, &run).run()?.expect(2);
    second.expect_error(&["shared/run", "no other process", "--run"]);
    running.wait()?.expect(0);
    Program::alone().train(&config, &whole).run()?.expect(0);
    assert_same_run(&whole, &run, "beside a refused start")
}

/// Two ranks that set out with different files: all leave at once, and the message says who and what.
#[test]
fn a_rank_with_another_configuration_is_named() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let (one, other) = (world.config("one", &data, &[])?, world.config("other", &data, &[("optimizer.lr", "0.06")])?);
    let run = world.run("run");
    let ended = Program::under_mpirun(1).train(&one, &run).and_on_another_rank(&other, &run).limit(30).run()?.expect(2);
    ended.expect_error(&["the ranks do not agree", "rank 1 (", "optimizer.lr", "0.06", "on rank 0", "0.05", "next:"]);
    assert!(!run.exists(), "a run folder was made");
    Ok(())
}

/// Two ranks whose configurations are the same, word by word, and whose data make other networks.
#[test]
fn a_rank_with_another_network_is_named_with_its_tensors() -> Result<()> {
    let world = World::new()?;
    let (one, other) = (world.path("one"), world.path("other"));
    for (folder, classes) in [(&one, 4), (&other, 5)] {
        fs::create_dir(folder)?;
        let data = world.images(&format!("of-{classes}"), Images { classes, ..Images::colour(40) })?;
        fs::rename(data, folder.join("data.h5"))?;
    }
    let config = world.config("relative", Path::new("data.h5"), &[])?;
    let run = world.run("run");
    let program = Program::under_mpirun(1).within(&one).train(&config, &run);
    let ended = program.and_on_another_rank_within(&other, &config, &run).limit(30).run()?.expect(2);
    let ended = ended.expect_error(&["the ranks do not agree", "rank 1 (", "the network", "next:"]);
    let lines: Vec<&str> = ended.said.lines().filter(|line| line.contains("rank 1 (")).collect();
    let tensor = |line: &&str| line.contains("tensor ") && line.contains("Float32 [5") && line.contains("Float32 [4");
    assert_eq!(lines.iter().filter(|line| tensor(line)).count(), 2, "{}", ended.said);
    assert!(!run.exists(), "a run folder was made");
    Ok(())
}

#[test]
fn gradients_in_a_type_that_mpi_does_not_sum_are_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = world.config("half", &data, &[("comm.gradient_dtype", "\"bfloat16\"")])?;
    let run = world.run("run");
    let ended = Program::under_mpirun(2).train(&config, &run).limit(30).run()?.expect(2);
    ended.expect_error(&["comm.gradient_dtype", "bfloat16", "MPI", "nccl"]);
    assert!(!run.exists(), "a run folder was made");
    // A rank alone sends nothing.
    Program::alone().train(&config, &run).stop_after(1).run()?.expect(85);
    Ok(())
}
