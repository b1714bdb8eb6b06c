//! A run that is stopped, killed or damaged, and started again by the same command, ends as the uninterrupted one to the bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::{Images, Program, World, assert_same_run, has_done, metrics, tensors};

/// A world with two epochs of introspective distillation with batch norm, three steps each.
struct Distillation {
    world: World,
    config: PathBuf,
}

impl Distillation {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let data = world.images("data", Images::colour(48))?;
        let mut changes = World::distil(&world.teacher(&data)?);
        // Selection and the random draws of augmentation are part of what must be resumed.
        changes.push(("epochs", "2".into()));
        changes.push(("evaluation.selection", "\"held_out\"".into()));
        changes.push(("evaluation.held_out", "0.1".into()));
        changes.push(("data.augment", "{ crop = 2, flip = true }".into()));
        changes.push(("averages", "{ ema = { decay = 0.9 }, swa = { from_epoch = 0 } }".into()));
        let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let config = world.config("distil", &data, &changes)?;
        Ok(Self { world, config })
    }

    fn run(&self, name: &str) -> PathBuf {
        self.world.run(name)
    }

    /// The uninterrupted run on `ranks` ranks.
    fn whole(&self, ranks: usize) -> Result<PathBuf> {
        let run = self.run("whole");
        Program::on(ranks).train(&self.config, &run).run()?.expect(0);
        Ok(run)
    }
}

/// Longer runs, for faults that come at any time: about a hundred steps, a checkpoint every sixth.
fn many_epochs(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    world.config("many", &data, &[("epochs", "20"), ("student.architecture", "\"resnet8\""), ("attack.steps", "3")])
}

#[test]
fn checkpoints_by_the_clock_change_nothing() -> Result<()> {
    let distillation = Distillation::new()?;
    let whole = distillation.whole(2)?;
    let often = distillation.run("often");
    // Every step is later than a billionth of a minute.
    let program = Program::on(2).train(&distillation.config, &often);
    program.set("checkpoint.minutes", "1e-9").set("checkpoint.keep_last", 100).run()?.expect(0);
    // Clocks are read a step later, or at the end of an epoch.
    for step in [2, 3, 5, 6] {
        assert!(often.join(format!("checkpoints/step-{step:08}.safetensors")).is_file(), "step {step}");
    }
    assert_same_run(&whole, &often, "with a checkpoint at every step")
}

#[test]
fn the_same_command_gives_the_same_bits_twice() -> Result<()> {
    let distillation = Distillation::new()?;
    let whole = distillation.whole(1)?;
    let again = distillation.run("again");
    Program::alone().train(&distillation.config, &again).run()?.expect(0);
    assert_same_run(&whole, &again, "a second time")?;
    let events = metrics(&whole)?;
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    let epoch = ["step", "step", "step", "epoch", "evaluated"];
    assert_eq!(kinds, [&["started"][..], &epoch, &epoch, &["finished"]].concat());
    let best = tensors(&whole.join("checkpoints/best.safetensors"))?;
    assert_eq!(best, tensors(&again.join("checkpoints/best.safetensors"))?);
    Ok(())
}

/// Stops after `steps` and resumes, on `ranks` ranks, and compares with the uninterrupted run.
fn stopped_after(distillation: &Distillation, whole: &Path, ranks: usize, steps: u64) -> Result<()> {
    let run = distillation.run(&format!("stopped-{steps}"));
    Program::on(ranks).train(&distillation.config, &run).stop_after(steps).run()?.expect(85);
    assert!(run.join(format!("checkpoints/step-{steps:08}.safetensors")).is_file());
    Program::on(ranks).train(&distillation.config, &run).run()?.expect(0);
    assert_same_run(whole, &run, &format!("stopped after step {steps} on {ranks} ranks"))?;
    for weights in ["best", "ema", "swa"] {
        let file = |run: &Path| tensors(&run.join(format!("checkpoints/{weights}.safetensors")));
        assert_eq!(file(whole)?, file(&run)?, "the {weights} weights, stopped after step {steps}");
    }
    Ok(())
}

#[test]
fn a_run_on_one_rank_can_stop_after_every_step() -> Result<()> {
    let distillation = Distillation::new()?;
    let whole = distillation.whole(1)?;
    for steps in 1..=6 {
        stopped_after(&distillation, &whole, 1, steps)?;
    }
    Ok(())
}

#[test]
fn a_run_on_two_ranks_can_stop_within_and_between_epochs() -> Result<()> {
    let distillation = Distillation::new()?;
    let whole = distillation.whole(2)?;
    for steps in [2, 3, 4, 6] {
        stopped_after(&distillation, &whole, 2, steps)?;
    }
    Ok(())
}

#[test]
fn a_finished_run_started_again_stays_as_it_is() -> Result<()> {
    let distillation = Distillation::new()?;
    let whole = distillation.whole(1)?;
    let (events, weights) = (metrics(&whole)?, tensors(&whole.join("checkpoints/final.safetensors"))?);
    for ranks in [1, 2] {
        Program::on(ranks).train(&distillation.config, &whole).run()?.expect(0);
        assert_eq!(events, metrics(&whole)?, "started again on {ranks} ranks");
        assert_eq!(weights, tensors(&whole.join("checkpoints/final.safetensors"))?);
    }
    Ok(())
}

#[test]
fn a_terminated_start_stops_its_ranks_resumably() -> Result<()> {
    let world = World::new()?;
    let config = many_epochs(&world)?;
    let (whole, run) = (world.run("whole"), world.run("terminated"));
    Program::alone().starting_ranks(2).train(&config, &whole).run()?.expect(0);
    let mut running = Program::alone().starting_ranks(2).train(&config, &run).start()?;
    running.wait_until("step 8", || has_done(&run, 8))?;
    running.signal("TERM", &[running.process()]);
    running.wait()?.expect(85);
    assert!(!has_done(&run, 120), "the run was over before it was asked to stop");
    Program::alone().starting_ranks(2).train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "after SIGTERM")
}

#[test]
fn an_interrupted_run_on_one_rank_stops_resumably() -> Result<()> {
    let world = World::new()?;
    let config = many_epochs(&world)?;
    let (whole, run) = (world.run("whole"), world.run("interrupted"));
    Program::alone().train(&config, &whole).run()?.expect(0);
    for (signal, step) in [("INT", 4), ("TERM", 18), ("USR1", 50)] {
        let mut running = Program::alone().train(&config, &run).start()?;
        running.wait_until(&format!("step {step}"), || has_done(&run, step))?;
        running.signal(signal, &[running.process()]);
        running.wait()?.expect(85);
    }
    Program::alone().train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "after SIGINT, SIGTERM and SIGUSR1")
}

#[test]
fn a_signal_to_mpirun_stops_the_ranks_resumably() -> Result<()> {
    let world = World::new()?;
    let config = many_epochs(&world)?;
    let (whole, run) = (world.run("whole"), world.run("signalled"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    let mut running = Program::on(2).train(&config, &run).start()?;
    running.wait_until("step 20", || has_done(&run, 20))?;
    running.signal("USR1", &[running.process()]);
    running.wait()?.expect(85);
    Program::on(2).train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "after SIGUSR1")
}

/// A request at the last step of an epoch is not lost: here every step is the last.
#[test]
fn a_signal_is_heard_where_an_epoch_is_one_step() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    let config = world.config("short", &data, &[("epochs", "60"), ("batch.size", "48")])?;
    let (whole, run) = (world.run("whole"), world.run("signalled"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    let mut running = Program::under_mpirun(2).train(&config, &run).start()?;
    running.wait_until("step 5", || has_done(&run, 5))?;
    running.signal("USR1", &[running.process()]);
    running.wait()?.expect(85);
    Program::under_mpirun(2).train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "after SIGUSR1")
}

#[test]
fn a_run_killed_again_and_again_ends_as_if_it_had_not_been() -> Result<()> {
    let world = World::new()?;
    let config = many_epochs(&world)?;
    let (whole, run) = (world.run("whole"), world.run("killed"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    // From before the first checkpoint to the last epochs, and some milliseconds of a step later.
    for (step, milliseconds) in [(1, 3), (5, 17), (6, 0), (6, 6), (23, 11), (48, 1), (71, 29), (112, 8)] {
        let mut running = Program::on(2).train(&config, &run).start()?;
        running.wait_until(&format!("step {step}"), || has_done(&run, step))?;
        thread::sleep(Duration::from_millis(milliseconds));
        running.kill_all();
        let ended = running.wait()?;
        assert_ne!(ended.code, Some(0), "it was over before it was killed at step {step}");
    }
    Program::on(2).train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, "after SIGKILL")
}

/// Damages the newest of two checkpoints, after step 5, and resumes from the older one after step 3.
fn damaged(damage: impl Fn(&mut Vec<u8>)) -> Result<()> {
    let distillation = Distillation::new()?;
    let whole = distillation.whole(1)?;
    let run = distillation.run("damaged");
    Program::alone().train(&distillation.config, &run).stop_after(5).run()?.expect(85);
    let newest = run.join("checkpoints/step-00000005.safetensors");
    let mut bytes = fs::read(&newest).context("the newest checkpoint")?;
    damage(&mut bytes);
    fs::write(&newest, bytes)?;
    let ended = Program::alone().train(&distillation.config, &run).run()?.expect(0);
    let warnings: Vec<&str> = ended.said.lines().filter(|line| line.contains("warning")).collect();
    assert_eq!(warnings.len(), 1, "{}", ended.said);
    assert!(warnings[0].contains("step-00000005.safetensors"), "{}", warnings[0]);
    assert_same_run(&whole, &run, "from the checkpoint before the damaged one")
}

#[test]
fn a_changed_checkpoint_is_passed_over() -> Result<()> {
    damaged(|bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    })
}

#[test]
fn a_truncated_checkpoint_is_passed_over() -> Result<()> {
    damaged(|bytes| bytes.truncate(bytes.len() / 2))
}
