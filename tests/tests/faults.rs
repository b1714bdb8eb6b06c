//! Every kind of fault that `--inject` knows, in a run of two ranks: the right rank is named, the exit code is right,
//! everything is gone in time, and the run resumes to the bits of a run without the fault.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tests::{Images, Program, Stored, World, assert_same_run, metrics, tell, tensors};

/// A fault, and what must follow.
struct Case {
    fault: &'static str,
    code: i32,
    says: &'static [&'static str],
}

const CASES: [Case; 12] = [
    Case { fault: "rank=1,step=7,phase=attack,kind=hang", code: 1, says: &["rank 1 on ", "step 7, phase attack"] },
    Case { fault: "rank=0,step=7,phase=backward,kind=hang", code: 1, says: &["rank 0 on ", "step 7, phase backward"] },
    Case { fault: "rank=0,step=7,phase=save,kind=hang", code: 1, says: &["rank 0 on ", "save after step "] },
    Case { fault: "rank=1,step=7,phase=forward,kind=kill", code: 1, says: &["rank 1 on ", "signal 9"] },
    Case { fault: "rank=0,step=7,phase=save,kind=kill", code: 1, says: &["rank 0 on ", "signal 9"] },
    Case { fault: "rank=1,step=7,phase=update,kind=panic", code: 1, says: &["rank 1 of 2", "a bug stopped this rank"] },
    Case { fault: "rank=1,step=7,kind=nan", code: 1, says: &["step 7: the gradient is not finite"] },
    Case { fault: "rank=1,step=7,kind=desync", code: 1, says: &["the parameter ", " differs between ranks 0 and 1"] },
    Case { fault: "rank=1,step=7,phase=data,kind=slow,ms=700", code: 0, says: &["trained 18 steps"] },
    Case {
        fault: "rank=0,step=7,phase=save,kind=io-error",
        code: 0,
        says: &["no checkpoint is saved after step ", "injected input/output error", "trained 18 steps"],
    },
    Case { fault: "rank=1,step=7,phase=save,kind=signal", code: 85, says: &["the same command goes on"] },
    Case { fault: "rank=0,step=7,phase=communication,kind=signal", code: 85, says: &["the same command goes on"] },
];

fn config(world: &World) -> Result<PathBuf> {
    let data = world.images("data", Images::colour(96))?;
    // A checkpoint after each step.
    let changes = [("epochs", "3"), ("checkpoint.minutes", "1e-9"), ("watchdog.step", "3"), ("watchdog.save", "3")];
    world.config("config", &data, &changes)
}

fn fails(case: &Case, config: &Path, run: &Path) -> Result<()> {
    let program = Program::alone().starting_ranks(2).train(config, run);
    let program = program.args(["--allow-fault-injection", "--inject", case.fault]);
    let mut running = program.start()?;
    running.wait_until("the fault", || happened(run))?;
    // The budget and 5 s; a run that goes on takes its time.
    running.gone_within(Duration::from_secs(if case.code == 1 { 8 } else { 60 }))?;
    let ended = running.wait()?.expect(case.code);
    for part in case.says {
        assert!(ended.said.contains(part), "{}: {part:?} is missing:\n{}", case.fault, ended.said);
    }
    assert_eq!(ended.said.matches("injected fault: ").count(), 1, "{}", ended.said);
    Ok(())
}

/// Whether the log of a rank says that the fault happens.
fn happened(run: &Path) -> bool {
    (0..2).any(|rank| {
        let log = std::fs::read_to_string(run.join(format!("logs/rank-{rank:04}.log"))).unwrap_or_default();
        log.contains("injected fault: ")
    })
}

/// The events and the final weights of a run. A save that is refused is an event too.
fn without_warnings(run: &Path) -> Result<(Vec<Value>, BTreeMap<String, Stored>)> {
    let mut events = metrics(run)?;
    events.retain(|event| event["event"] != "warned");
    Ok((events, tensors(&run.join("checkpoints/final.safetensors"))?))
}

#[test]
fn every_kind_of_fault_is_told_and_survived() -> Result<()> {
    let world = World::new()?;
    let (config, whole) = (config(&world)?, world.run("whole"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    for (number, case) in CASES.iter().enumerate() {
        let run = world.run(&format!("fault-{number}"));
        fails(case, &config, &run)?;
        Program::on(2).train(&config, &run).run()?.expect(0);
        if case.fault.ends_with("io-error") {
            assert_eq!(without_warnings(&whole)?, without_warnings(&run)?, "{}", case.fault);
        } else {
            assert_same_run(&whole, &run, case.fault)?;
        }
        tell(&format!("{}: as it should be", case.fault));
    }
    Ok(())
}

#[test]
fn a_fault_strikes_once_and_a_restart_ends_the_run() -> Result<()> {
    let world = World::new()?;
    let (config, whole, run) = (config(&world)?, world.run("whole"), world.run("run"));
    Program::on(2).train(&config, &whole).run()?.expect(0);
    let program = Program::alone().args(["train", "--max-restarts", "2"]).starting_ranks(2).train(&config, &run);
    let fault = ["--allow-fault-injection", "--inject", "rank=1,step=7,phase=attack,kind=kill"];
    let ended = program.args(fault).run()?.expect(0);
    assert!(ended.said.contains("attempt 1 of 3 ended: rank 1 on "), "{}", ended.said);
    assert_same_run(&whole, &run, "after a restart")
}

#[test]
fn a_fault_needs_permission_and_known_words() -> Result<()> {
    let world = World::new()?;
    let (config, run) = (config(&world)?, world.run("run"));
    let refused = |arguments: &[&str]| Program::alone().train(&config, &run).args(arguments).run();
    let ended = refused(&["--inject", "kind=hang"])?.expect(2);
    assert!(ended.said.contains("--allow-fault-injection"), "{}", ended.said);
    let ended = refused(&["--allow-fault-injection", "--inject", "kind=explode"])?.expect(2);
    assert!(ended.said.contains("io-error"), "{}", ended.said);
    assert!(!run.exists(), "a run folder was made");
    Ok(())
}
