//! Requests to stop at any moment, to any process: a checkpoint where training has begun, exit code 85, and a run that ends
//! as one that nobody disturbed.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Draws, Images, Program, Running, World, assert_same_run, holds_requests, metrics, tell};

/// Who gets a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum To {
    /// The process that was typed.
    First,
    Mpirun,
    Rank(usize),
    /// Every process at once, as job managers send it.
    All,
}

fn config(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images { test: 96, ..Images::colour(96) })?;
    world.config("config", &data, &[("epochs", "40"), ("evaluation.suite", "[\"natural\", \"pgd20\"]")])
}

/// The processes that get the request, once they are there and the system has loaded them.
fn receivers(running: &Running, to: To) -> Vec<u32> {
    let found = match to {
        To::First => vec![running.process()],
        To::Mpirun => running.processes("mpirun"),
        To::Rank(rank) => running.rank(rank).into_iter().collect(),
        To::All => running.all_processes(),
    };
    found.into_iter().filter(|process| holds_requests(*process)).collect()
}

/// The steps that the run has recorded, and the newest checkpoint's step.
fn progress(run: &Path) -> (u64, u64) {
    let steps = metrics(run).unwrap_or_default();
    let recorded =
        steps.iter().filter(|event| event["event"] == "step").filter_map(|event| event["step"].as_u64()).max();
    let entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    let step = |name: String| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok();
    let saved = entries.filter_map(|entry| step(entry.file_name().to_string_lossy().into_owned())).max();
    (recorded.unwrap_or(0), saved.unwrap_or(0))
}

/// Stops a run of so many ranks at random moments, in the first seconds and after the first step, and then ends it. mpirun tells
/// of the end itself where it was `typed`.
fn stopped(
    name: &str,
    (ranks, typed): (usize, bool),
    start: impl Fn() -> Program,
    of: &[(&str, To)],
    ends_with_85: impl Fn(&str, To) -> bool,
) -> Result<()> {
    let mut draws = Draws::told(name);
    let count = std::env::var("IAD_STOPS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let world = World::new()?;
    let config = config(&world)?;
    let whole = world.run("whole");
    Program::on(ranks).train(&config, &whole).run()?.expect(0);
    let mut run = world.run("stopped-0");
    let (mut early, mut late, mut finished) = (0, 0, 0);
    for number in 1..=count {
        let (signal, to) = of[draws.below(of.len() as u64) as usize];
        let moment = Duration::from_millis(draws.below(2000));
        let what =
            format!("{name}, request {number}: {signal} to {to:?} after {moment:?}, IAD_FAULT_SEED={}", draws.seed);
        let mut running = start().train(&config, &run).start()?;
        while receivers(&running, to).is_empty() {
            running.wait_until("the receiver of the request", || true)?;
        }
        let (before, _) = progress(&run);
        if number % 2 == 0 {
            // A run that is done meanwhile counts as finished.
            let _ = running.wait_until("a step", || progress(&run).0 > before);
        }
        thread::sleep(moment);
        let processes = receivers(&running, to);
        running.try_signal(signal, &processes);
        let ended = running.wait().with_context(|| what.clone())?;
        if ended.code == Some(0) {
            // It was done before its moment came.
            assert_same_run(&whole, &run, &what)?;
            finished += 1;
            run = world.run(&format!("stopped-{number}"));
            continue;
        }
        let (recorded, saved) = progress(&run);
        *if recorded == before { &mut early } else { &mut late } += 1;
        ensure!(recorded == saved, "{what}: {recorded} steps recorded, {saved} saved; it said:\n{}", ended.said);
        if ends_with_85(signal, to) {
            assert_eq!(ended.code, Some(85), "{what}; it said:\n{}", ended.said);
            assert!(ended.said.contains("the same command goes on from here"), "{what}:\n{}", ended.said);
            assert!(
                !ended.said.contains("error: ") && (typed || !ended.said.contains("-----")),
                "{what}:\n{}",
                ended.said
            );
        }
    }
    tell(&format!("{name}: {early} stops before a step, {late} later, {finished} runs were done before"));
    assert!(early + late > 0, "no run was stopped");
    Program::on(ranks).train(&config, &run).run()?.expect(0);
    assert_same_run(&whole, &run, &format!("{name}, IAD_FAULT_SEED={}", draws.seed))
}

const SIGNALS: [&str; 3] = ["TERM", "INT", "USR1"];

fn each(to: &[To]) -> Vec<(&'static str, To)> {
    SIGNALS.into_iter().flat_map(|signal| to.iter().map(move |to| (signal, *to))).collect()
}

#[test]
fn a_run_of_one_rank_stops_at_any_moment() -> Result<()> {
    stopped("alone", (1, false), Program::alone, &each(&[To::First]), |_, _| true)
}

#[test]
fn a_run_of_two_ranks_that_the_program_starts_stops_at_any_moment() -> Result<()> {
    let to = each(&[To::First, To::Mpirun, To::Rank(0), To::Rank(1), To::All]);
    stopped("ranks of the program", (2, false), || Program::alone().starting_ranks(2), &to, |_, _| true)
}

#[test]
fn a_run_under_mpirun_stops_at_any_moment() -> Result<()> {
    let mut to = each(&[To::Rank(0), To::Rank(1), To::All]);
    to.push(("USR1", To::First));
    // mpirun ends with a code of its own where it is asked to end.
    stopped("mpirun", (2, true), || Program::under_mpirun(2), &to, |signal, to| to != To::All || signal == "USR1")
}

/// The first step of a session counts as slow, for its pace is not known. So the request to stop is answered
/// within its attack, and the resumed run repeats the step.
#[test]
fn a_step_is_given_up_within_its_attack_and_repeated() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(48))?;
    for ranks in 1..=3 {
        let changes = [("epochs", "2"), ("attack.steps", "400"), ("evaluation.suite", "[\"natural\"]")];
        let config = world.config("config", &data, &changes)?;
        let (whole, run) = (world.run(&format!("whole-{ranks}")), world.run(&format!("run-{ranks}")));
        Program::on(ranks).train(&config, &whole).run()?.expect(0);
        let signal = |step: u64| {
            let fault = format!("rank={},step={step},phase=attack,kind=signal", ranks - 1);
            Program::on(ranks).train(&config, &run).args(["--allow-fault-injection", "--inject", &fault]).run()
        };
        let ended = signal(1)?.expect(85);
        assert!(ended.said.contains("step 1 was given up within its attack"), "{ranks} ranks:\n{}", ended.said);
        assert_eq!(progress(&run), (0, 0), "{ranks} ranks: a step that was given up is recorded or saved");
        Program::on(ranks).train(&config, &run).stop_after(2).run()?.expect(85);
        let ended = signal(3)?.expect(85);
        assert!(ended.said.contains("step 3 was given up within its attack"), "{ranks} ranks:\n{}", ended.said);
        assert_eq!(progress(&run).1, 2, "{ranks} ranks");
        Program::on(ranks).train(&config, &run).run()?.expect(0);
        assert_same_run(&whole, &run, &format!("{ranks} ranks"))?;
    }
    Ok(())
}
