//! Averages of the weights: what they are of, on any number of ranks, and that they are evaluated beside the raw weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, largest_difference, student, tensors};

/// Three epochs of three steps each in double precision, on 1 and 2 ranks. Stopped after each of `stops`, and gone on from the
/// checkpoint there; all are kept.
fn run(world: &World, ranks: usize, stops: &[u64]) -> Result<PathBuf> {
    let data = world.images(&format!("data-{ranks}"), Images::colour(48))?;
    let changes = [
        ("epochs", "3"),
        ("student.architecture", "\"resnet8\""),
        ("precision.dtype", "\"float64\""),
        ("averages", "{ ema = { decay = 0.8, from_epoch = 1 }, swa = { from_epoch = 1 } }"),
        ("evaluation.selection", "\"held_out\""),
        ("evaluation.held_out", "0.05"),
        ("evaluation.final", "true"),
        ("checkpoint", "{ keep_last = 100 }"),
    ];
    let (config, run) = (world.config(&format!("averaged-{ranks}"), &data, &changes)?, world.run(&ranks.to_string()));
    for steps in stops {
        Program::on(ranks).train(&config, &run).stop_after(*steps).run()?.expect(85);
    }
    Program::on(ranks).train(&config, &run).run()?.expect(0);
    Ok(run)
}

type Values = BTreeMap<String, Vec<f64>>;

/// The values of the student's tensors whose names `keep` takes.
fn values(file: &Path, keep: impl Fn(&str) -> bool) -> Result<Values> {
    let kept = student(file)?.into_iter().filter(|(name, _)| keep(name) && !name.ends_with("num_batches_tracked"));
    kept.map(|(name, stored)| Ok((name, stored.values()?))).collect()
}

/// Moves `average` towards `values` by a share of the way.
fn take(average: &mut Values, values: &Values, share: f64) {
    for (name, average) in average {
        average.iter_mut().zip(&values[name]).for_each(|(average, value)| *average += (value - *average) * share);
    }
}

fn assert_close(found: &Values, expected: &Values, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, found) in found {
        let differences = found.iter().zip(&expected[name]).map(|(found, expected)| (found - expected).abs());
        let largest = differences.fold(0.0, f64::max);
        assert!(largest < 1e-12, "{what}: {name} differs by {largest:e}");
    }
}

#[test]
fn averages_are_of_the_weights_they_say() -> Result<()> {
    let world = World::new()?;
    let run = run(&world, 1, &[4, 5, 6, 7, 8, 9])?;
    let file = |name: &str| run.join(format!("checkpoints/{name}.safetensors"));
    let step = |step: u64| file(&format!("step-{step:08}"));

    // The moving average begins as the weights after the first step of epoch 1, running statistics included.
    let mut moving = values(&step(4), |_| true)?;
    for number in 5..=9 {
        take(&mut moving, &values(&step(number), |_| true)?, 0.2);
    }
    assert_close(&values(&file("ema"), |_| true)?, &moving, "the moving average");

    let parameters = |name: &str| !name.contains("running_");
    let mut mean = values(&step(6), parameters)?;
    take(&mut mean, &values(&step(9), parameters)?, 0.5);
    assert_close(&values(&file("swa"), parameters)?, &mean, "the mean over epochs");
    // Its running statistics are those of its own weights, not a mean of others'.
    let statistics = |name: &str| name.contains("running_");
    let mut mean = values(&step(6), statistics)?;
    take(&mut mean, &values(&step(9), statistics)?, 0.5);
    assert_ne!(values(&file("swa"), statistics)?, mean);
    Ok(())
}

#[test]
fn averages_are_the_same_on_any_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let (alone, two) = (run(&world, 1, &[])?, run(&world, 2, &[])?);
    for name in ["ema", "swa"] {
        let file = |run: &Path| tensors(&run.join(format!("checkpoints/{name}.safetensors")));
        let (difference, tensor) = largest_difference(&file(&alone)?, &file(&two)?)?;
        assert!(difference < 1e-9, "{name}: {tensor} differs by {difference:e}");
    }
    Ok(())
}

#[test]
fn all_weights_are_evaluated_and_reported() -> Result<()> {
    let world = World::new()?;
    let run = run(&world, 1, &[])?;
    let evaluation = |name: &str| -> Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(run.join(name)).with_context(|| name.to_string())?)?)
    };
    assert_eq!(evaluation("evaluation.json")?["weights"], "best");
    for weights in ["final", "ema", "swa"] {
        let found = evaluation(&format!("evaluation-{weights}.json"))?;
        assert_eq!((&found["weights"], &found["images"]), (&weights.into(), &32.into()));
    }
    // Best weights that are those of the last step are evaluated once, for both files.
    let (best, last) = (evaluation("evaluation.json")?, evaluation("evaluation-final.json")?);
    assert_eq!(best["step"] == last["step"], best["timing"] == last["timing"], "{best:#} {last:#}");
    if best["step"] == last["step"] {
        assert_eq!(best["attacks"], last["attacks"]);
        let table = |name: &str| std::fs::read_to_string(run.join(name));
        assert_eq!(table("evaluation.samples.csv")?, table("evaluation-final.samples.csv")?);
    }
    let report = Program::alone().args(["report".as_ref(), run.as_os_str()]).run()?.expect(0);
    for weights in ["best", "final", "ema", "swa"] {
        assert!(report.said.lines().any(|line| line.contains(&format!(" {weights} "))), "{}", report.said);
    }
    // Evaluating one of them again writes where the run did.
    let eval = Program::alone()
        .args(["eval".as_ref(), run.as_os_str(), "--weights".as_ref(), "swa".as_ref()])
        .run()?
        .expect(0);
    assert!(eval.said.contains("swa weights") && eval.said.contains("evaluation-swa.json"), "{}", eval.said);
    Ok(())
}
