//! Fine-tuning: a student that begins with weights, with its own last layer or a new one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::{Images, Program, World, header, metrics, student};

/// Changes of a run whose steps are too small to be seen in a parameter.
const STANDS_STILL: [(&str, &str); 4] = [
    ("student.architecture", "\"wrn-10-1\""),
    ("optimizer.lr", "1e-30"),
    ("optimizer.weight_decay", "0.0"),
    ("evaluation.suite", "[]"),
];

fn run(world: &World, name: &str, data: &Path, more: &[(&str, &str)]) -> Result<(tests::Ended, PathBuf)> {
    let config = world.config(name, data, &[&STANDS_STILL, more].concat())?;
    let run = world.run(name);
    Ok((Program::alone().train(&config, &run).run()?, run))
}

fn trained(world: &World, data: &Path) -> Result<PathBuf> {
    let changes = [("student.architecture", "\"wrn-10-1\""), ("evaluation.suite", "[]")];
    let run = world.run("trained");
    Program::alone().train(&world.config("trained", data, &changes)?, &run).run()?.expect(0);
    Ok(run)
}

/// A parameter's values.
fn values(run: &Path, name: &str) -> Result<Vec<f64>> {
    let tensors = student(&run.join("checkpoints/final.safetensors"))?;
    let found = tensors.iter().find(|(known, _)| known.ends_with(name)).with_context(|| name.to_string())?;
    found.1.values()
}

fn close(one: &[f64], other: &[f64]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| (one - other).abs() < 1e-12)
}

#[test]
fn a_student_begins_with_the_weights_of_a_run_or_a_file() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(32))?;
    let before = trained(&world, &data)?;
    let file = before.join("checkpoints/final.safetensors");
    for (name, path) in [("of_run", &before), ("of_file", &file)] {
        let path = format!("{:?}", path.display().to_string());
        let (ended, after) = run(&world, name, &data, &[("student.checkpoint", &path)])?;
        ended.expect(0);
        for parameter in ["block1.layer.0.conv1.weight", "bn1.weight", "fc.weight", "fc.bias"] {
            assert!(close(&values(&before, parameter)?, &values(&after, parameter)?), "{name}: {parameter}");
        }
        assert!(!metrics(&after)?.iter().any(|event| event["event"] == "warned"));
    }
    // Without the key nothing is written, and the weights are others.
    let (ended, scratch) = run(&world, "scratch", &data, &[])?;
    ended.expect(0);
    assert!(!std::fs::read_to_string(scratch.join("run.toml"))?.contains("reset_classifier"));
    assert!(!close(&values(&before, "fc.weight")?, &values(&scratch, "fc.weight")?));

    // A new last layer is that of a run from scratch; everything else is loaded.
    let seven = world.images("seven", Images { classes: 7, ..Images::colour(32) })?;
    let path = format!("{:?}", before.display().to_string());
    let reset = [("student.checkpoint", path.as_str()), ("student.reset_classifier", "true")];
    let (ended, after) = run(&world, "reset", &seven, &reset)?;
    ended.expect(0);
    let (ended, scratch) = run(&world, "seven_from_scratch", &seven, &[])?;
    ended.expect(0);
    assert!(close(&values(&after, "conv1.weight")?, &values(&before, "conv1.weight")?));
    assert!(close(&values(&after, "fc.weight")?, &values(&scratch, "fc.weight")?));
    assert_eq!(header(&after.join("checkpoints/final.safetensors"))?["form"]["classes"], 7);

    let (ended, _) = run(&world, "seven", &seven, &[("student.checkpoint", &path)])?;
    ended.expect(2).expect_error(&[
        "student.checkpoint",
        "3 of 7 classes unknown to it",
        "student.reset_classifier = true",
    ]);
    Ok(())
}

#[test]
fn outputs_are_reordered_by_name() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(64))?;
    let before = trained(&world, &data)?;
    let path = format!("{:?}", before.display().to_string());
    let classes = ("data.subset.classes", r#"["pattern 2", "pattern 0", "pattern 3"]"#);
    let (ended, after) = run(&world, "fewer", &data, &[("student.checkpoint", &path), classes])?;
    let said = ended.expect(0).said;
    assert!(said.contains("student.checkpoint: takes the outputs of pattern 2, pattern 0, pattern 3"), "{said}");
    let (old, new) = (values(&before, "fc.bias")?, values(&after, "fc.bias")?);
    assert!(close(&new, &[old[2], old[0], old[3]]), "{old:?} {new:?}");
    Ok(())
}

#[test]
fn weights_that_do_not_fit_are_refused_before_training() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(32))?;
    let before = trained(&world, &data)?;
    let path = format!("{:?}", before.display().to_string());
    let missing = format!("{:?}", world.path("nowhere").display().to_string());
    let container = format!("{:?}", data.display().to_string());
    let checkpoint = |path| ("student.checkpoint", path);
    for (changes, parts) in [
        (vec![checkpoint(missing.as_str())], &["student.checkpoint is missing", "a finished run folder or a file"][..]),
        (vec![checkpoint(&container)], &["student.checkpoint", "data.h5", "weights of this program"]),
        (
            vec![checkpoint(&path), ("student.architecture", "\"resnet8\"")],
            &["student.checkpoint", "wrn-10-1", "resnet8"],
        ),
        (vec![checkpoint(&path), ("student.normalize", "\"cifar10\"")], &["student.checkpoint", "student.normalize"]),
        (vec![("student.reset_classifier", "true")], &["student.reset_classifier", "student.checkpoint beside it"]),
    ] {
        let (ended, run) = run(&world, "refused", &data, &changes)?;
        ended.expect(2).expect_error(parts);
        assert!(!run.exists(), "a run folder was made");
    }
    Ok(())
}
