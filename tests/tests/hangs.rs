//! Ranks that hang instead of dying: one report names them, everything is gone in time, and the run resumes.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::{Ended, Images, Program, Running, World, handles_requests, has_done, tell};

/// A silent rank is given up after this time here, instead of 20 s.
const SILENCE: u64 = 3;

/// Everything is gone so long after a budget has passed.
const GRACE: u64 = 5;

fn config(world: &World, changes: &[(&str, &str)]) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    let changes = [&[("epochs", "1000"), ("checkpoint.minutes", "1e-3")], changes].concat();
    world.config("config", &data, &changes)
}

fn console(run: &Path) -> String {
    fs::read_to_string(run.join("console.log")).unwrap_or_default()
}

/// Starts a run, and returns it when it trains.
fn training(program: Program, config: &Path, run: &Path) -> Result<Running> {
    let mut running = program.train(config, run).variable("IAD_LIVENESS_SECONDS", &SILENCE.to_string()).start()?;
    running.wait_until("step 8", || has_done(run, 8))?;
    Ok(running)
}

fn state(process: u32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// Stops processes, and makes sure that they are stopped.
fn stop(running: &mut Running, processes: &[u32]) -> Result<()> {
    running.signal("STOP", processes);
    running.wait_until("the processes to be stopped", || processes.iter().all(|process| state(*process) == Some('T')))
}

fn resumes(config: &Path, run: &Path) -> Result<()> {
    let steps = 4 + tests::metrics(run)?.iter().filter_map(|event| event["step"].as_u64()).max().unwrap_or(0);
    let again = Program::on(2).train(config, run).stop_after(steps).run()?.expect(85);
    assert!(again.said.contains("going on from step"), "{}", again.said);
    Ok(())
}

/// A report that names `rank` once, here and in console.log, with a line for each rank.
fn assert_reported(ended: &Ended, run: &Path, rank: usize, words: &str) {
    for text in [&ended.said, &console(run)] {
        assert_eq!(text.matches("error: ").count(), 1, "number of reports:\n{text}");
        assert!(text.contains(&format!("error: rank {rank} ")) && text.contains(words), "{text}");
        assert!(text.contains("\n  rank 0 on ") && text.contains("\n  rank 1 on "), "not each rank:\n{text}");
    }
}

fn silent(ranks: usize, rank: usize, start: impl Fn() -> Program) -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, &[])?, world.run("run"));
    let mut running = training(start(), &config, &run)?;
    let victim = running.rank(rank).context("no such rank")?;
    stop(&mut running, &[victim])?;
    let took = running.gone_within(Duration::from_secs(SILENCE + GRACE))?;
    tell(&format!("rank {rank} of {ranks} stopped: all was gone after {:.1} s", took.as_secs_f64()));
    let ended = running.wait()?.expect(1);
    assert_reported(&ended, &run, rank, &format!("has been silent for {SILENCE} s"));
    resumes(&config, &run)
}

#[test]
fn a_stopped_rank_under_mpirun_ends_the_run() -> Result<()> {
    silent(2, 1, || Program::under_mpirun(2))
}

#[test]
fn a_stopped_rank_0_under_mpirun_ends_the_run() -> Result<()> {
    silent(3, 0, || Program::under_mpirun(3))
}

#[test]
fn a_stopped_rank_that_the_program_started_ends_the_run() -> Result<()> {
    silent(3, 2, || Program::alone().starting_ranks(3))
}

/// A rank whose own thread hangs while its other threads live.
fn stuck(rank: usize, stage: &str, phase: &str, words: &str) -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, &[(stage, "3.0")])?, world.run("run"));
    let program = Program::alone().starting_ranks(2).train(&config, &run);
    let fault = format!("--inject=rank={rank},step=10,phase={phase},kind=hang");
    let mut running = program.args(["--allow-fault-injection", &fault]).start()?;
    running.wait_until("the fault", || console(&run).contains("injected fault") || has_done(&run, 8))?;
    running.gone_within(Duration::from_secs(3 + GRACE))?;
    let ended = running.wait()?.expect(1);
    assert_reported(&ended, &run, rank, words);
    resumes(&config, &run)
}

#[test]
fn a_rank_that_hangs_in_its_attack_is_named_with_step_and_phase() -> Result<()> {
    stuck(1, "watchdog.step", "attack", "step 10, phase attack")
}

#[test]
fn a_rank_that_waits_for_its_images_for_ever_is_named() -> Result<()> {
    stuck(0, "watchdog.data", "data", "data after step 10")
}

/// A second request, 3 s after the first, does not wait for a rank that hangs.
fn forced(rank: usize) -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, &[])?, world.run("run"));
    let program = Program::alone().starting_ranks(2).train(&config, &run);
    let mut running = program.variable("IAD_LIVENESS_SECONDS", "0").start()?;
    running.wait_until("step 8", || has_done(&run, 8))?;
    let victim = running.rank(rank).context("no such rank")?;
    stop(&mut running, &[victim])?;
    running.signal("TERM", &[running.process()]);
    thread::sleep(Duration::from_millis(3500));
    assert!(!running.all_processes().is_empty(), "it ended without a second request");
    running.signal("TERM", &[running.process()]);
    running.gone_within(Duration::from_secs(5))?;
    let ended = running.wait()?.expect(1);
    let ended = ended.expect_error(&["SIGTERM came again", &format!("rank {rank} on "), "silent", "did not answer"]);
    let report = ended.said.lines().find(|line| line.contains("came again")).context("no report")?;
    assert!(!report.contains(&format!("rank {} on ", 1 - rank)), "another rank is named: {report}");
    resumes(&config, &run)
}

#[test]
fn a_second_request_ends_a_run_with_a_hung_rank() -> Result<()> {
    forced(1)
}

#[test]
fn a_second_request_ends_a_run_whose_rank_0_hangs() -> Result<()> {
    forced(0)
}

/// Nothing outlives the launcher, also where a stopped process cannot notice its end.
fn orphaned(choose: impl Fn(&Running) -> Vec<u32>) -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, &[])?, world.run("run"));
    let mut running = training(Program::alone().starting_ranks(2), &config, &run)?;
    let victims = choose(&running);
    assert!(!victims.is_empty(), "nobody to stop");
    stop(&mut running, &victims)?;
    running.signal("KILL", &[running.process()]);
    running.gone_within(Duration::from_secs(GRACE))?;
    assert_eq!(running.wait()?.code, None, "it was not killed");
    resumes(&config, &run)
}

#[test]
fn a_killed_launcher_takes_a_stopped_rank_0_with_it() -> Result<()> {
    orphaned(|running| running.rank(0).into_iter().collect())
}

#[test]
fn a_killed_launcher_takes_all_stopped_ranks_and_mpirun_with_it() -> Result<()> {
    orphaned(|running| {
        let ranks = running.rank(0).into_iter().chain(running.rank(1));
        ranks.chain(running.processes("mpirun")).collect()
    })
}

#[test]
fn a_stopped_mpirun_ends_the_run_that_started_it() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, &[])?, world.run("run"));
    let mut running = training(Program::alone().starting_ranks(2), &config, &run)?;
    let victims = running.processes("mpirun");
    assert_eq!(victims.len(), 1);
    stop(&mut running, &victims)?;
    running.gone_within(Duration::from_secs(SILENCE + GRACE))?;
    running.wait()?.expect(1).expect_error(&["mpirun is stopped (SIGSTOP)"]);
    resumes(&config, &run)
}

#[test]
fn a_rank_that_is_stopped_before_its_first_heartbeat_ends_the_run() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world, &[])?, world.run("run"));
    let program = Program::alone().starting_ranks(2).train(&config, &run);
    let mut running = program.variable("IAD_LIVENESS_SECONDS", &SILENCE.to_string()).start()?;
    while running.rank(1).is_none() {
        running.wait_until("rank 1", || true)?;
    }
    let victim = running.rank(1).context("no such rank")?;
    assert!(!handles_requests(victim), "it has been heard");
    stop(&mut running, &[victim])?;
    running.gone_within(Duration::from_secs(SILENCE + 2 * GRACE))?;
    running.wait()?.expect(1).expect_error(&["rank 1 is stopped (SIGSTOP)"]);
    Program::on(2).train(&config, &run).stop_after(8).run()?.expect(85);
    Ok(())
}

#[test]
fn a_rank_that_is_stopped_while_it_leaves_does_not_keep_the_run() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(96))?;
    let config = world.config("config", &data, &[("epochs", "1")])?;
    let mut stopped = 0;
    for delay in [0, 50, 100, 150] {
        let run = world.run(&format!("run-{delay}"));
        let program = Program::alone().starting_ranks(2).train(&config, &run);
        let mut running = program.variable("IAD_LIVENESS_SECONDS", &SILENCE.to_string()).start()?;
        running.wait_until("rank 1", || has_done(&run, 1))?;
        let victim = running.rank(1).context("no such rank")?;
        running.wait_until("the end of the run", || run.join("report.html").exists())?;
        thread::sleep(Duration::from_millis(delay));
        stopped += usize::from(running.try_signal("STOP", &[victim]));
        running.gone_within(Duration::from_secs(SILENCE + 2 * GRACE))?;
        running.wait()?.expect(0);
    }
    tell(&format!("{stopped} of 4 ranks were stopped while they left"));
    assert!(stopped > 0, "no rank was stopped");
    Ok(())
}
