//! Any process of a run, any signal, any moment: nothing is left behind, and the run ends as one that nobody disturbed.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::{
    Draws, Images, Program, Running, World, assert_same_run, handles_requests, has_done, holds_requests, tell,
};

/// Everything is gone so long after the signal.
const LIMIT: Duration = Duration::from_secs(15);

/// Draws in a test run; `IAD_KILLS` sets another number.
const DRAWS: u64 = 40;

const VICTIMS: [&str; 4] = ["launcher", "mpirun", "rank 0", "rank 1"];
const SIGNALS: [&str; 5] = ["KILL", "TERM", "INT", "USR1", "STOP"];

fn config(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images { test: 96, ..Images::colour(96) })?;
    let changes = [("epochs", "100"), ("evaluation.suite", "[\"natural\", \"pgd20\"]"), ("checkpoint.minutes", "2e-3")];
    world.config("config", &data, &changes)
}

fn victim(running: &Running, name: &str) -> Option<u32> {
    let found = match name {
        "launcher" => Some(running.process()),
        "mpirun" => running.processes("mpirun").first().copied(),
        _ => running.rank(name.strip_prefix("rank ")?.parse().ok()?),
    };
    // Until the system has loaded a program, it ends it as any other.
    found.filter(|process| holds_requests(*process))
}

/// Strikes a run once. Returns whether it was finished before.
fn strike(config: &Path, run: &Path, (name, signal): (&str, &str), moment: Duration, what: &str) -> Result<bool> {
    let program = Program::alone().starting_ranks(2).train(config, run).variable("IAD_LIVENESS_SECONDS", "5");
    let mut running = program.start()?;
    while victim(&running, name).is_none() {
        running.wait_until("the victim", || true)?;
    }
    if signal == "STOP" && name.starts_with("rank") {
        // A rank that is stopped before its first heartbeat is found by the budget of the start, which is longer.
        while victim(&running, name).is_some_and(|process| !handles_requests(process)) {
            running.wait_until("the rank's first heartbeat", || true)?;
        }
        thread::sleep(Duration::from_millis(500));
    }
    thread::sleep(moment);
    let Some(process) = victim(&running, name) else {
        return Ok(running.wait()?.code == Some(0));
    };
    running.signal(signal, &[process]);
    if (name, signal) == ("launcher", "STOP") {
        // The run does not depend on it; it ends when it goes on.
        thread::sleep(Duration::from_secs(1));
        running.signal("CONT", &[process]);
        running.signal("TERM", &[process]);
    }
    let began = Instant::now();
    running.gone_within(LIMIT).with_context(|| what.to_string())?;
    let ended = running.wait()?;
    tell(&format!("{what}: code {:?}, gone after {:.1} s", ended.code, began.elapsed().as_secs_f64()));
    let asks = ["TERM", "INT", "USR1"].contains(&signal) || (name, signal) == ("launcher", "STOP");
    // A run that was ending is done; a request in the milliseconds of loading a rank is one all the same.
    let codes: &[Option<i32>] = match (name, signal) {
        _ if asks => &[Some(85), Some(0)],
        ("launcher", "KILL") => &[None, Some(0)],
        // Stopped before its ranks are there, it is woken, and nothing has been lost.
        ("mpirun", "STOP") => &[Some(85), Some(1), Some(0)],
        _ => &[Some(1), Some(0)],
    };
    assert!(codes.contains(&ended.code), "{what}: code {:?}, it said:\n{}", ended.code, ended.said);
    Ok(ended.code == Some(0))
}

#[test]
fn no_signal_to_any_process_leaves_anything_behind_or_costs_a_bit() -> Result<()> {
    let mut draws = Draws::told("kill matrix");
    let count = std::env::var("IAD_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(DRAWS);
    let world = World::new()?;
    let (config, whole) = (config(&world)?, world.run("whole"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    let mut run = world.run("struck-0");
    let (mut struck, mut finished) = (0, 0);
    for number in 1..=count {
        let name = VICTIMS[draws.below(VICTIMS.len() as u64) as usize];
        let signal = SIGNALS[draws.below(SIGNALS.len() as u64) as usize];
        let moment = Duration::from_millis(draws.below(3000));
        let what = format!("kill matrix {number}, IAD_FAULT_SEED={}: {signal} to {name} after {moment:?}", draws.seed);
        if strike(&config, &run, (name, signal), moment, &what)? {
            assert_same_run(&whole, &run, &what)?;
            finished += 1;
            run = world.run(&format!("struck-{number}"));
        } else {
            struck += 1;
        }
    }
    assert!(struck > 0, "no run was struck before its end");
    Program::on(2).train(&config, &run).run()?.expect(0);
    assert!(has_done(&run, 600));
    assert_same_run(&whole, &run, &format!("kill matrix, IAD_FAULT_SEED={}", draws.seed))?;
    tell(&format!("kill matrix: {struck} runs struck, {finished} were done before, none lost"));
    Ok(())
}
