//! The number of ranks may change from one start to the next, and failed ranks are started again where that was asked for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::{Images, Program, World, assert_same_run, has_done, largest_difference, metrics, tell, tensors};

/// IAD-I in double precision with batch norm across ranks, and a checkpoint at every step.
fn distillation(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(60))?;
    let mut changes = World::distil(&world.teacher(&data)?);
    changes.push(("epochs", "3".into()));
    changes.push(("precision.dtype", "\"float64\"".into()));
    changes.push(("batch_norm.across_ranks", "\"sync\"".into()));
    changes.push(("data.augment", "{ crop = 2, flip = true }".into()));
    changes.push(("checkpoint.minutes", "1e-9".into()));
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    world.config("distil", &data, &changes)
}

/// The losses of all steps, each of which depends on the samples of its batch.
fn losses(run: &Path) -> Result<Vec<f64>> {
    let events = metrics(run)?;
    let steps = events.iter().filter(|event| event["event"] == "step");
    steps.map(|step| step["loss"].as_f64().context("a loss that is not a number")).collect()
}

#[test]
fn a_run_may_go_on_with_another_number_of_ranks_in_the_middle_of_an_epoch() -> Result<()> {
    let world = World::new()?;
    let config = distillation(&world)?;
    let (whole, run) = (world.run("whole"), world.run("elastic"));
    Program::alone().train(&config, &whole).run()?.expect(0);
    // Epochs have four steps. Killed on four ranks in the first, stopped on two in the second, ended on three.
    let mut running = Program::on(4).train(&config, &run).start()?;
    running.wait_until("step 2", || has_done(&run, 2))?;
    running.kill_all();
    running.wait()?;
    Program::on(2).train(&config, &run).stop_after(7).run()?.expect(85);
    assert!(run.join("checkpoints/step-00000007.safetensors").is_file());
    Program::on(3).train(&config, &run).run()?.expect(0);
    let (alone, elastic) = (losses(&whole)?, losses(&run)?);
    assert_eq!((alone.len(), elastic.len()), (12, 12));
    for (step, (one, other)) in alone.iter().zip(&elastic).enumerate() {
        assert!((one - other).abs() <= 1e-9 * one.abs(), "step {}: a loss of {one} on 1 rank, {other}", step + 1);
    }
    let last = |run: &Path| tensors(&run.join("checkpoints/final.safetensors"));
    let (difference, name) = largest_difference(&last(&whole)?, &last(&run)?)?;
    tell(&format!("4, 2, then 3 ranks, and 1 rank: final weights differ by {difference:.2e} ({name})"));
    assert!(difference <= 1e-9, "{name} differs by {difference:e}");
    Ok(())
}

fn many_epochs(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    world.config("many", &data, &[("epochs", "40")])
}

fn restarting(restarts: u32) -> Program {
    Program::alone().args(["train", "--max-restarts", &restarts.to_string()]).starting_ranks(2)
}

#[test]
fn killed_ranks_are_started_again_and_end_the_run() -> Result<()> {
    let world = World::new()?;
    let config = many_epochs(&world)?;
    let (whole, run) = (world.run("whole"), world.run("restarted"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    let mut running = restarting(3).train(&config, &run).start()?;
    running.wait_until("step 20", || has_done(&run, 20))?;
    let rank = running.rank(1).context("rank 1")?;
    running.signal("KILL", &[rank]);
    running.wait_until("the second start", || running_again(&run, 1))?;
    let mpirun = running.processes("mpirun");
    running.signal("KILL", &mpirun);
    let ended = running.wait()?.expect(0);
    for part in ["attempt 1 of 4 ended: rank 1 on ", "attempt 2 of 4 ended: mpirun was killed by signal 9", "in 2 s"] {
        assert!(ended.said.contains(part), "{part:?} is missing:\n{}", ended.said);
    }
    assert_same_run(&whole, &run, "after two restarts")
}

/// Whether the ranks have begun again so many times.
fn running_again(run: &Path, times: usize) -> bool {
    let log = std::fs::read_to_string(run.join("logs/rank-0001.log")).unwrap_or_default();
    log.matches("rank 1 of 2 on ").count() > times
}

#[test]
fn failures_that_bring_nothing_new_are_not_repeated() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    // The parameters explode in the first step.
    let config = world.config("explode", &data, &[("optimizer.lr", "1e30")])?;
    let ended = restarting(9).train(&config, &world.run("run")).run()?.expect(1);
    let told = ended.said.matches("the gradient is not finite").count();
    assert_eq!(told, 2, "as often as it was started:\n{}", ended.said);
    let given_up = ["attempt 1 of 10 ended", "not started again", "2 attempts in a row left no newer checkpoint"];
    assert!(given_up.iter().all(|part| ended.said.contains(part)), "{}", ended.said);
    Ok(())
}

#[test]
fn a_request_to_stop_is_no_failure() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (many_epochs(&world)?, world.run("run"));
    let mut running = restarting(3).train(&config, &run).start()?;
    running.wait_until("step 8", || has_done(&run, 8))?;
    running.signal("TERM", &[running.process()]);
    let ended = running.wait()?.expect(85);
    assert!(!ended.said.contains("attempt"), "{}", ended.said);
    Ok(())
}

#[test]
fn a_mistake_is_not_repeated() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (many_epochs(&world)?, world.run("run"));
    let mut first = Program::alone().train(&config, &run).set("epochs", 1000).start()?;
    first.wait_until("step 1", || has_done(&run, 1))?;
    // Only its ranks find out that another process uses the folder.
    let ended = restarting(3).train(&config, &run).set("epochs", 1000).run()?.expect(2);
    ended.expect_error(&["no other process"]);
    Ok(())
}

#[test]
fn restarts_are_refused_where_another_launcher_starts_the_ranks() -> Result<()> {
    let world = World::new()?;
    let config = many_epochs(&world)?;
    let program = Program::under_mpirun(2).train(&config, &world.run("run")).args(["--max-restarts", "2"]);
    program.run()?.expect(2).expect_error(&["--max-restarts is 2", "no --max-restarts under an MPI launcher", "next:"]);
    Ok(())
}

#[test]
fn a_killed_evaluation_is_started_again() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images { test: 480, ..Images::colour(48) })?;
    let config = world.config("evaluated", &data, &[("evaluation.suite", "[]")])?;
    let run = world.run("run");
    Program::alone().train(&config, &run).run()?.expect(0);
    let program = Program::alone().args(["eval", "--max-restarts", "2", "--suite", "pgd50"]).args([&run]);
    let mut running = program.starting_ranks(2).start()?;
    let journal = || {
        std::fs::read_dir(&run)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.path().extension().is_some_and(|extension| extension == "journal"))
    };
    running.wait_until("a journal", journal)?;
    let rank = running.rank(1).context("rank 1")?;
    running.signal("KILL", &[rank]);
    let ended = running.wait()?.expect(0);
    assert!(ended.said.contains("attempt 1 of 3 ended: rank 1 on "), "{}", ended.said);
    assert!(run.join("evaluation-pgd50.json").is_file());
    Ok(())
}
