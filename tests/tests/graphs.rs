//! Steps that are recorded once and replayed, here as recordings of the CPU's operations: whole runs, on one rank and several.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;
use tests::{Images, Program, World, assert_same_run, metrics};

/// Where a CPU records too.
const RECORDS: &str = "IAD_TEST_GRAPHS";

/// Two epochs of introspective distillation of which the second has the introspection; each ends with a smaller batch.
struct Distillation {
    world: World,
    config: PathBuf,
}

impl Distillation {
    fn new(batch_norm: &str) -> Result<Self> {
        let world = World::new()?;
        let data = world.images("data", Images::colour(92))?;
        let mut changes = World::distil(&world.teacher(&data)?);
        changes.retain(|(key, _)| *key != "epochs");
        for (key, value) in [
            ("epochs", "2"),
            ("precision.cuda_graphs", "true"),
            ("batch_norm.across_ranks", batch_norm),
            ("evaluation.selection", "\"none\""),
        ] {
            changes.push((key, value.into()));
        }
        let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let config = world.config("graphs", &data, &changes)?;
        Ok(Self { world, config })
    }

    fn program(&self, ranks: usize, run: &Path) -> Program {
        Program::on(ranks).train(&self.config, run)
    }
}

/// The seconds of all epochs in a phase.
fn seconds(run: &Path, phase: &str) -> Result<f64> {
    let mut all = 0.0;
    for line in std::fs::read_to_string(run.join("metrics.jsonl"))?.lines() {
        let event: Value = serde_json::from_str(line)?;
        if event["event"] == "epoch" {
            all += event["timing"]["phases"][phase].as_f64().unwrap_or(0.0);
        }
    }
    Ok(all)
}

fn warnings(run: &Path) -> Result<Vec<String>> {
    let events = metrics(run)?;
    let told = events.iter().filter(|event| event["event"] == "warned").filter_map(|event| event["message"].as_str());
    Ok(told.filter(|message| message.contains("cuda_graphs")).map(str::to_string).collect())
}

#[test]
fn a_replayed_run_is_the_called_one_to_the_bit() -> Result<()> {
    let distillation = Distillation::new("\"local\"")?;
    for ranks in [1, 2, 3] {
        let [called, replayed, mixed] =
            ["called", "replayed", "mixed"].map(|name| distillation.world.run(&format!("{name}-{ranks}")));
        distillation.program(ranks, &called).set("precision.cuda_graphs", false).run()?.expect(0);
        distillation.program(ranks, &replayed).variable(RECORDS, "1").run()?.expect(0);
        assert_same_run(&called, &replayed, &format!("replayed on {ranks} ranks"))?;
        assert!(warnings(&replayed)?.is_empty());
        assert!(seconds(&called, "replay")? == 0.0 && seconds(&replayed, "replay")? > 0.0, "{ranks} ranks");

        // A run may go on with recordings or without.
        let recording =
            |on: bool| distillation.program(ranks, &mixed).set("precision.cuda_graphs", on).variable(RECORDS, "1");
        recording(true).stop_after(5).run()?.expect(85);
        recording(false).stop_after(7).run()?.expect(85);
        recording(true).run()?.expect(0);
        assert_same_run(&called, &mixed, &format!("resumed on {ranks} ranks"))?;
    }
    Ok(())
}

/// One rank that mpirun started has a transport, which cannot be recorded and is not needed.
#[test]
fn one_rank_under_mpirun_is_replayed_as_one_without() -> Result<()> {
    let distillation = Distillation::new("\"sync\"")?;
    let [called, replayed] = ["called", "replayed"].map(|name| distillation.world.run(name));
    distillation.program(1, &called).set("precision.cuda_graphs", false).run()?.expect(0);
    Program::under_mpirun(1).train(&distillation.config, &replayed).variable(RECORDS, "1").run()?.expect(0);
    assert_same_run(&called, &replayed, "under mpirun")?;
    assert!(warnings(&replayed)?.is_empty() && seconds(&replayed, "replay")? > 0.0);
    Ok(())
}

#[test]
fn where_nothing_can_be_recorded_a_run_says_so_once_and_goes_on() -> Result<()> {
    let (local, sync) = (Distillation::new("\"local\"")?, Distillation::new("\"sync\"")?);
    for (name, distillation, ranks, test, reason) in [
        ("cpu", &local, 1, None, "only GPUs"),
        ("waits", &local, 1, Some("waits"), "waits for the device"),
        ("part-waits", &local, 2, Some("waits"), "waits for the device"),
        ("sync", &sync, 2, Some("1"), "batch_norm.across_ranks"),
    ] {
        let [called, run] =
            ["called", name].map(|name| distillation.world.run(&format!("{name}-{ranks}-beside-{name}")));
        distillation.program(ranks, &called).set("precision.cuda_graphs", false).run()?.expect(0);
        let program = distillation.program(ranks, &run);
        let program = match test {
            Some(value) => program.variable(RECORDS, value),
            None => program.without(RECORDS),
        };
        program.run()?.expect(0);
        let told = warnings(&run)?;
        assert!(told.len() == 1 && told[0].contains(reason), "{name}: {told:?}");
        let weights = |run: &Path| tests::tensors(&run.join("checkpoints/final.safetensors"));
        assert_eq!(weights(&called)?, weights(&run)?, "{name}");
    }
    Ok(())
}
