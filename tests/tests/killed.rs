//! A rank, mpirun or the parent is killed at any moment: all ends within ten seconds, says who, and resumes to the same bits.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tests::{Images, Program, Running, World, assert_same_run, has_done, tell};

const LIMIT: Duration = Duration::from_secs(10);

/// A configuration of short steps, with a checkpoint every sixth, and an evaluation at the end.
fn config(world: &World, epochs: u32) -> Result<PathBuf> {
    let data = world.images("data", Images { test: 96, ..Images::colour(96) })?;
    let epochs = epochs.to_string();
    let changes =
        [("epochs", epochs.as_str()), ("evaluation.suite", "[\"natural\", \"pgd20\"]"), ("checkpoint.keep_last", "3")];
    world.config("config", &data, &changes)
}

fn log(run: &Path, rank: usize) -> String {
    fs::read_to_string(run.join(format!("logs/rank-{rank:04}.log"))).unwrap_or_default()
}

/// Kills that rank of a run on two ranks, with these changes of keys, when `moment` has come: under a typed mpirun, and where
/// the program starts its ranks itself. Everything must end in time, and name the rank; resumed, the run ends as one that
/// nobody disturbed.
fn killed(rank: usize, set: &[(&str, &str)], moment: impl Fn(&Path) -> bool) -> Result<()> {
    let world = World::new()?;
    let (config, whole) = (config(&world, 6)?, world.run("whole"));
    let set = |program: Program| set.iter().fold(program, |program, (key, value)| program.set(key, value));
    set(Program::on(2).train(&config, &whole)).run()?.expect(0);
    let programs = [(Program::under_mpirun(2), 137), (Program::alone().starting_ranks(2), 1)];
    for (program, code) in programs {
        let run = world.run(&format!("killed-{code}"));
        let mut running = set(program.train(&config, &run)).start()?;
        // Its rank is there before its moment is.
        let process = loop {
            match running.rank(rank) {
                Some(process) => break process,
                None => running.wait_until("a rank", || true)?,
            }
        };
        running.wait_until("the moment", || moment(&run))?;
        running.signal("KILL", &[process]);
        running.gone_within(LIMIT)?;
        let ended = running.wait()?.expect(code);
        assert!(ended.said.contains(&format!("rank {rank} ")), "the rank is not named:\n{}", ended.said);
        assert!(ended.said.contains("signal 9"), "{}", ended.said);
        set(Program::on(2).train(&config, &run)).run()?.expect(0);
        assert_same_run(&whole, &run, "after a killed rank")?;
    }
    Ok(())
}

#[test]
fn a_rank_killed_while_loading_ends_the_run() -> Result<()> {
    killed(1, &[], |_| true)
}

#[test]
fn a_rank_killed_while_training_ends_the_run() -> Result<()> {
    killed(1, &[], |run| has_done(run, 8))
}

#[test]
fn a_rank_killed_while_a_checkpoint_is_written_ends_the_run() -> Result<()> {
    // Every step is later than a billionth of a minute, and rank 0 writes.
    killed(0, &[("checkpoint.minutes", "1e-9")], |run| {
        let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|ending| ending == "partial"))
    })
}

#[test]
fn a_rank_killed_while_evaluating_ends_the_run() -> Result<()> {
    killed(1, &[], |run| run.join("checkpoints/final.safetensors").is_file() && !run.join("evaluation.json").exists())
}

/// Any rank at any moment, again and again. The seed is told; `IAD_FAULT_SEED` repeats it.
#[test]
fn ranks_killed_at_random_moments_cost_only_time() -> Result<()> {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    let seed = std::env::var("IAD_FAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(clock);
    tell(&format!("ranks_killed_at_random_moments_cost_only_time: IAD_FAULT_SEED={seed}"));
    let mut state = seed;
    let mut draw = |below: u64| {
        // The generator of Knuth's MMIX; its high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let world = World::new()?;
    let config = config(&world, 60)?;
    let (whole, run) = (world.run("whole"), world.run("killed"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    let steps =
        || fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().matches("\"event\":\"step\"").count();
    for kill in 0..5 {
        // At most 60 of the 360 steps for each kill, so that the run is not over before the last one.
        let goal = steps() + draw(60) as usize;
        let mut running = Program::on(2).train(&config, &run).start()?;
        let rank = draw(2) as usize;
        let victim = loop {
            match running.rank(rank) {
                Some(process) => break process,
                None => running.wait_until("a rank", || true)?,
            }
        };
        // Every other moment is drawn from the start and the loading, and the others from the training.
        if kill % 2 == 1 {
            running.wait_until(&format!("step {goal}"), || steps() >= goal)?;
        }
        thread::sleep(Duration::from_millis(draw(if kill % 2 == 1 { 50 } else { 500 })));
        running.signal("KILL", &[victim]);
        running.gone_within(LIMIT)?;
        assert_ne!(running.wait()?.code, Some(0), "kill {kill} came after the end, IAD_FAULT_SEED={seed}");
    }
    Program::on(2).train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, &format!("after kills, IAD_FAULT_SEED={seed}"))
}

/// Kills the process that starts the ranks; the logs of `ranks` must tell the cause.
fn orphaned(program: Program, choose: impl Fn(&Running) -> Option<u32>, ranks: &[usize], cause: &str) -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, 1000)?, world.run("run"));
    let mut running = program.train(&config, &run).start()?;
    running.wait_until("step 8", || has_done(&run, 8))?;
    let victim = choose(&running).context("no such process")?;
    running.signal("KILL", &[victim]);
    running.gone_within(LIMIT)?;
    let ended = running.wait()?;
    assert_ne!(ended.code, Some(0), "{ended:?}");
    for rank in ranks {
        assert!(log(&run, *rank).contains(cause), "rank {rank}:\n{}", log(&run, *rank));
    }
    Program::on(2).train(&config, &run).stop_after(12).run()?.expect(85);
    // The next session stands in the same logs.
    assert_eq!(log(&run, 1).matches("rank 1 of 2 on ").count(), 2, "{}", log(&run, 1));
    assert!(log(&run, 1).ends_with("stopped in good order\n"), "{}", log(&run, 1));
    Ok(())
}

#[test]
fn a_killed_mpirun_ends_its_ranks() -> Result<()> {
    let cause = "the process that started this rank (mpirun, or the launcher's daemon on this node) is gone";
    orphaned(Program::under_mpirun(2), |running| Some(running.process()), &[0, 1], cause)
}

#[test]
fn a_killed_mpirun_ends_the_run_that_started_it() -> Result<()> {
    let cause = "the process that started this rank (mpirun, or the launcher's daemon on this node) is gone";
    let program = Program::alone().starting_ranks(2);
    orphaned(program, |running| running.processes("mpirun").first().copied(), &[0, 1], cause)
}

#[test]
fn a_killed_parent_ends_the_ranks_it_started() -> Result<()> {
    let cause = "the iad-launch that started these ranks is gone";
    orphaned(Program::alone().starting_ranks(2), |running| Some(running.process()), &[0], cause)
}
