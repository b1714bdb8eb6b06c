//! `iad-launch doctor`: alone, under mpirun, and where something is wrong.

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Program, World};

fn findings(program: Program, code: i32) -> Result<Vec<Value>> {
    let said = program.args(["--json"]).run()?.expect(code).said;
    let found: Value = serde_json::from_str(&said).with_context(|| said)?;
    Ok(found["findings"].as_array().context("findings")?.clone())
}

fn subjects(found: &[Value]) -> Vec<&str> {
    found.iter().filter_map(|found| found["subject"].as_str()).collect()
}

const ALWAYS: [&str; 11] =
    ["ranks", "mpi", "libtorch", "gpu", "nccl", "hdf5", "processor", "cores", "open files", "run folder", "locking"];

#[test]
fn a_machine_that_trains_has_no_error() -> Result<()> {
    let world = World::new()?;
    let runs = world.path("runs-to-come");
    let doctor = || Program::alone().args(["doctor", "--runs"]).args([&runs]);
    let found = findings(doctor(), 0)?;
    let subjects = subjects(&found);
    assert!(ALWAYS.iter().all(|subject| subjects.contains(subject)), "{subjects:?}");
    let processor = found.iter().find(|found| found["subject"] == "processor").context("it")?;
    assert!(processor["text"].to_string().contains("bfloat16"), "{processor}");
    // Whatever is wrong has a way out.
    assert!(found.iter().all(|found| found["level"] == "ok" || found["next"].is_string()), "{found:?}");
    assert!(!runs.exists(), "the trial was left behind");
    let plain = doctor().run()?.expect(0);
    assert!(plain.said.contains("ok       libtorch"), "{}", plain.said);
    Ok(())
}

#[test]
fn ranks_of_a_job_look_together() -> Result<()> {
    let world = World::new()?;
    let found = findings(Program::under_mpirun(2).args(["doctor", "--runs"]).args([world.path("runs")]), 0)?;
    let text = |subject| found.iter().find(|found| found["subject"] == subject).map(|found| found["text"].to_string());
    assert!(text("ranks").context("ranks")?.contains("2 in one job"), "{found:?}");
    assert!(text("clocks").context("clocks")?.contains(" s from rank 0"), "{found:?}");
    assert!(text("program").context("program")?.contains("the same on every rank"), "{found:?}");
    // Both ranks find the same libraries: one line.
    assert_eq!(subjects(&found).iter().filter(|subject| **subject == "libtorch").count(), 1);
    Ok(())
}

#[test]
fn what_makes_runs_fail_is_an_error() -> Result<()> {
    let world = World::new()?;
    let file = world.path("a-file");
    std::fs::write(&file, "")?;
    let ended = Program::alone().args(["doctor", "--runs"]).args([file.join("runs")]).run()?.expect(1);
    assert!(
        ended.said.contains("error    run folder") && ended.said.contains("next: choose another"),
        "{}",
        ended.said
    );
    let srun = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_PROCID", "0")];
    let copies = srun.iter().fold(Program::alone(), |program, (name, value)| program.variable(name, value));
    let ended = copies.args(["doctor"]).run()?.expect(1);
    assert!(ended.said.contains("error    ranks") && ended.said.contains("srun --mpi=pmix"), "{}", ended.said);
    let missing = Program::alone().variable("IAD_MPIRUN", "/no/such/mpirun").args(["doctor"]);
    let ended = missing.args(["--runs"]).args([world.path("runs")]).run()?.expect(0);
    assert!(ended.said.contains("warning  mpi") && ended.said.contains("set IAD_MPIRUN"), "{}", ended.said);
    Ok(())
}
