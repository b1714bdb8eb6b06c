//! The hidden commands that the programs under benches/ call.

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Program, checkout};

/// The losses of two steps of a small network.
fn losses(ranks: usize) -> Result<Vec<f64>> {
    let config = checkout().join("benches/step/step.toml");
    let program = Program::on(ranks).args(["bench".as_ref(), "step".as_ref(), config.as_os_str()]);
    let program = program.set("student.architecture", "resnet8").set("batch.size", 8).set("attack.steps", 1);
    let ended = program.args(["--epoch", "199", "--image", "3x16x16", "--steps", "2"]).run()?.expect(0);
    let lines = ended.said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let steps: Vec<Value> = lines.filter(|line| line["loss"].is_number()).collect();
    assert!(steps.iter().all(|step| step["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0)));
    steps.iter().map(|step| step["loss"].as_f64().context("a loss")).collect()
}

#[test]
fn the_step_that_is_timed_is_the_same_on_two_ranks() -> Result<()> {
    let (alone, together) = (losses(1)?, losses(2)?);
    assert_eq!((alone.len(), together.len()), (2, 2));
    assert!(alone[0] != alone[1], "nothing moved");
    for (one, other) in alone.iter().zip(&together) {
        assert!((one - other).abs() <= 1e-3 * one.abs(), "{alone:?}, {together:?}");
    }
    Ok(())
}
