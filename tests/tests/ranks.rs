//! The number of ranks does not change a run: the same batches, the same steps, the same counts.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Images, Program, World, assert_same_run, largest_difference, metrics, student, tell, tensors};

type Changes<'a> = Vec<(&'a str, String)>;

fn config(world: &World, name: &str, data: &Path, changes: &Changes) -> Result<PathBuf> {
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    world.config(name, data, &changes)
}

/// Runs twenty steps of five epochs on 1 to 4 ranks and asserts that losses, parameters, momentum and statistics agree.
/// The last batch of an epoch has 13 images, which no number of ranks divides.
fn twenty_steps_agree(world: &World, config: &Path, tolerance: f64) -> Result<()> {
    let run = |ranks: usize| world.run(&format!("{ranks}-ranks"));
    for ranks in 1..=4 {
        Program::on(ranks).train(config, &run(ranks)).stop_after(20).run()?.expect(85);
    }
    let losses = |ranks: usize| -> Result<Vec<f64>> {
        let events = metrics(&run(ranks))?;
        let steps = events.iter().filter(|event| event["event"] == "step");
        steps.map(|step| step["loss"].as_f64().context("a loss that is not a number")).collect()
    };
    let checkpoint = |ranks: usize| tensors(&run(ranks).join("checkpoints/step-00000020.safetensors"));
    let (first, alone) = (losses(1)?, checkpoint(1)?);
    assert_eq!(first.len(), 20);
    for ranks in 2..=4 {
        let others = losses(ranks)?;
        let of_losses = first.iter().zip(&others).map(|(one, other)| ((one - other) / one).abs()).fold(0.0, f64::max);
        let (of_tensors, name) = largest_difference(&alone, &checkpoint(ranks)?)?;
        tell(&format!("1 and {ranks} ranks: losses differ by {of_losses:.2e}, tensors by {of_tensors:.2e} ({name})"));
        assert_eq!(others.len(), 20);
        assert!(of_losses <= tolerance, "losses on 1 rank {first:?}, on {ranks} {others:?}");
        assert!(of_tensors <= tolerance, "{name} differs by {of_tensors:e} between 1 and {ranks} ranks");
    }
    Ok(())
}

/// IAD-I with batch norm across ranks, or in a network without any.
fn distillation(architecture: &str, dtype: &str, tolerance: f64) -> Result<()> {
    let world = World::new()?;
    // In single precision rounding turns signs that the attack takes, and then twenty steps may end anywhere, on any
    // processor. There the attack moves no image far; in double precision it moves them as far as the paper's.
    let (shape, still) = if dtype == "float64" { ([3, 16, 16], None) } else { ([1, 16, 16], Some("1e-6")) };
    let data = world.images("data", Images { shape, ..Images::colour(61) })?;
    let mut changes = World::distil(&world.teacher(&data)?);
    changes.retain(|(key, _)| *key != "student.architecture");
    changes.push(("student.architecture", format!("{architecture:?}")));
    changes.push(("attack.steps", "2".into()));
    changes.extend(still.into_iter().flat_map(|length| ["attack.eps", "attack.step"].map(|key| (key, length.into()))));
    changes.push(("precision.dtype", format!("{dtype:?}")));
    changes.push(("batch_norm.across_ranks", "\"sync\"".into()));
    changes.push(("epochs", "6".into()));
    changes.push(("optimizer.lr", "0.01".into()));
    twenty_steps_agree(&world, &config(&world, "distil", &data, &changes)?, tolerance)
}

#[test]
fn a_network_without_batch_norm_takes_the_same_steps() -> Result<()> {
    distillation("convnet", "float32", 1e-5)
}

#[test]
fn a_network_without_batch_norm_takes_the_same_steps_in_double_precision() -> Result<()> {
    distillation("convnet", "float64", 1e-9)
}

#[test]
fn introspective_distillation_with_batch_norm_takes_the_same_steps() -> Result<()> {
    distillation("resnet8", "float64", 1e-9)
}

#[test]
fn introspective_distillation_in_single_precision_stays_close() -> Result<()> {
    distillation("resnet8", "float32", 1e-4)
}

#[test]
fn distillation_in_l2_takes_the_same_steps() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(61))?;
    let mut changes = World::distil(&world.teacher(&data)?);
    changes.retain(|(key, _)| *key != "student.architecture");
    for (key, value) in [
        ("student.architecture", "\"resnet8\""),
        ("attack.norm", "\"l2\""),
        ("attack.steps", "3"),
        ("evaluation.norm", "\"l2\""),
        ("precision.dtype", "\"float64\""),
        ("batch_norm.across_ranks", "\"sync\""),
        ("epochs", "6"),
        ("optimizer.lr", "0.01"),
    ] {
        changes.push((key, value.into()));
    }
    twenty_steps_agree(&world, &config(&world, "l2", &data, &changes)?, 1e-9)
}

#[test]
fn one_rank_is_the_same_with_and_without_mpi() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = config(&world, "distil", &data, &World::distil(&world.teacher(&data)?))?;
    Program::alone().train(&config, &world.run("alone")).run()?.expect(0);
    Program::under_mpirun(1).train(&config, &world.run("mpirun")).run()?.expect(0);
    assert_same_run(&world.run("alone"), &world.run("mpirun"), "with and without mpirun")
}

/// The program compares the ranks' parameters, momentum and statistics at each checkpoint and fails where they differ.
#[test]
fn ranks_with_batch_norm_of_their_own_hold_the_same_parameters() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(60))?;
    let mut changes = World::distil(&world.teacher(&data)?);
    changes.push(("batch_norm.across_ranks", "\"local\"".into()));
    let (config, run) = (config(&world, "local", &data, &changes)?, world.run("local"));
    Program::on(3).train(&config, &run).stop_after(2).run()?.expect(85);
    let checkpoint = |run: &Path| tensors(&run.join("checkpoints/step-00000002.safetensors"));
    let apart = checkpoint(&run)?;
    Program::on(3).train(&config, &run).run()?.expect(0);
    assert!(run.join("checkpoints/step-00000004.safetensors").is_file());

    // It is another computation than that of one rank, which the comparison of the other tests must be able to see.
    let alone = world.run("alone");
    Program::alone().train(&config, &alone).stop_after(2).run()?.expect(85);
    let (difference, name) = largest_difference(&checkpoint(&alone)?, &apart)?;
    tell(&format!("batch norm of 1 and of 3 ranks apart: tensors differ by {difference:.2e} ({name})"));
    assert!(difference > 1e-3, "{name} differs by {difference:e} only");
    Ok(())
}

/// Every count of an event: the values beside `of`.
fn counts(event: &Value) -> Vec<(u64, u64)> {
    let counts = event["counts"].as_object().into_iter().flatten();
    counts.filter_map(|(_, count)| Some((count["count"].as_u64()?, count["of"].as_u64()?))).collect()
}

#[test]
fn every_sample_counts_once_where_ranks_do_not_divide_the_data() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images { shape: [1, 16, 16], ..Images::colour(1003) })?;
    let changes = vec![("precision.dtype", "\"float64\"".to_string()), ("batch.size", "64".into())];
    let config = config(&world, "uneven", &data, &changes)?;
    let run = |ranks: usize| world.run(&format!("{ranks}-ranks"));
    for ranks in 1..=3 {
        Program::on(ranks).train(&config, &run(ranks)).run()?.expect(0);
        let events = metrics(&run(ranks))?;
        let epoch = events.iter().find(|event| event["event"] == "epoch").context("an epoch")?;
        let counts = counts(epoch);
        assert!(!counts.is_empty() && counts.iter().all(|(_, of)| *of == 1003), "{ranks} ranks: {epoch}");
    }
    let alone = metrics(&run(1))?;
    for ranks in 2..=3 {
        let events = metrics(&run(ranks))?;
        assert_eq!(alone.len(), events.len());
        for (one, other) in alone.iter().zip(&events) {
            assert_eq!(one["event"], other["event"]);
            assert_eq!(counts(one), counts(other), "1 and {ranks} ranks: {one} {other}");
            if let (Some(one), Some(other)) = (one["loss"].as_f64(), other["loss"].as_f64()) {
                assert!((one - other).abs() <= 1e-9 * one.abs(), "a loss of {one} on 1 rank, {other} on {ranks}");
            }
        }
    }
    Ok(())
}

/// Two epochs of IAD-I with introspection from the second on: its counts begin with the first.
#[test]
fn teacher_and_trust_are_counted_over_every_sample_on_any_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(61))?;
    let mut changes = World::distil(&world.teacher(&data)?);
    changes.push(("precision.dtype", "\"float64\"".into()));
    changes.push(("epochs", "2".into()));
    changes.push(("loss.terms", tests::IAD_1.replace("inverted = true }", "inverted = true }, from_epoch = 1")));
    let config = config(&world, "counted", &data, &changes)?;
    let mut alone = None;
    for ranks in 1..=3 {
        let run = world.run(&format!("{ranks}-ranks"));
        Program::on(ranks).train(&config, &run).run()?.expect(0);
        let epochs = metrics(&run)?.into_iter().filter(|event| event["event"] == "epoch");
        let seen: Vec<[Value; 3]> =
            epochs.map(|epoch| ["counts", "probability", "trust"].map(|name| epoch[name].clone())).collect();
        assert_eq!(seen.len(), 2);
        for [counts, probability, trust] in &seen {
            let count = |name: &str| counts[name]["count"].as_u64().with_context(|| format!("{name} in {counts}"));
            for name in ["student_natural", "student_adversarial", "guidance"] {
                count(name)?;
            }
            assert_eq!(count("case_a")? + count("case_b")?, count("teacher_natural")?);
            assert_eq!(count("case_a")? + count("case_d")?, count("teacher_adversarial")?);
            assert_eq!(count("case_a")? + count("case_b")? + count("case_c")?, 61);
            for case in ["case_a", "case_b", "case_c"] {
                let bins = probability[case].as_array().with_context(|| format!("{case} in {probability}"))?;
                let sum: u64 = bins.iter().filter_map(Value::as_u64).sum();
                assert_eq!((bins.len(), sum), (50, count(case)?), "{case}: {probability}");
            }
            let quantiles = trust["quantiles"]["all"].as_array().context("quantiles")?;
            let quantiles: Vec<f64> = quantiles.iter().filter_map(Value::as_f64).collect();
            assert!(quantiles.len() == 7 && quantiles.is_sorted() && trust["of"] == 61, "{trust}");
        }
        let seen: Vec<String> = seen
            .into_iter()
            .map(|[counts, probability, trust]| format!("{counts} {probability} {}", trust["quantiles"]))
            .collect();
        assert_eq!(*alone.get_or_insert(seen.clone()), seen, "on {ranks} ranks");
    }
    Ok(())
}

/// 1,025 images in batches of 64 leave one for the last batch: two of three ranks compute it on nothing.
fn last_batch_of_one(changes: &[(&str, &str)]) -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images { shape: [1, 16, 16], ..Images::colour(1025) })?;
    let all = [&[("batch.size", "64")], changes].concat();
    let (config, run) = (world.config("last", &data, &all)?, world.run("last"));
    Program::on(3).train(&config, &run).run()?.expect(0);
    let events = metrics(&run)?;
    let steps = events.iter().filter(|event| event["event"] == "step").count();
    assert_eq!(steps, 17);
    // A number that is not finite is written as null.
    assert!(events.iter().all(|event| !event.to_string().contains("null")), "{events:?}");
    for (name, stored) in student(&run.join("checkpoints/final.safetensors"))? {
        assert!(stored.values()?.iter().all(|value| value.is_finite()), "{name} is not finite");
    }
    Ok(())
}

#[test]
fn ranks_without_a_sample_take_part() -> Result<()> {
    last_batch_of_one(&[])
}

#[test]
fn ranks_without_a_sample_take_part_in_batch_norm_across_ranks() -> Result<()> {
    last_batch_of_one(&[("student.architecture", "\"resnet8\""), ("batch_norm.across_ranks", "\"sync\"")])
}

#[test]
fn ranks_without_a_sample_have_no_batch_norm_of_their_own() -> Result<()> {
    last_batch_of_one(&[("student.architecture", "\"resnet8\""), ("batch_norm.across_ranks", "\"local\"")])
}

#[test]
fn evaluation_counts_the_same_answers_on_any_number_of_ranks() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images { test: 103, ..Images::colour(48) })?;
    let changes = [("student.architecture", "\"resnet8\""), ("evaluation.suite", "[]")];
    let (config, run) = (world.config("evaluated", &data, &changes)?, world.run("evaluated"));
    Program::alone().train(&config, &run).run()?.expect(0);
    let attacks = ["natural", "fgsm", "fgsm_rs", "pgd20"];
    let mut first = None;
    for ranks in 1..=3 {
        let suite = attacks.join(",");
        Program::on(ranks)
            .args(["eval".as_ref(), run.as_os_str(), "--suite".as_ref(), suite.as_ref()])
            .run()?
            .expect(0);
        let path = run.join(format!("evaluation-{}.json", attacks.join("+")));
        let found: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        assert_eq!((&found["ranks"], &found["images"]), (&ranks.into(), &103.into()));
        let results = found["attacks"].as_array().context("attacks")?.clone();
        let of = |name: &str| results.iter().find(|attack| attack["name"] == name).map(|attack| attack["of"].clone());
        assert!(attacks.iter().all(|name| of(name) == Some(103.into())), "{found}");
        assert_eq!(*first.get_or_insert(results.clone()), results, "on {ranks} ranks");
    }
    Ok(())
}
