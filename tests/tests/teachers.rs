//! Teachers: those that are missing or do not fit are refused in time, and `--with-teachers` makes them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::{Images, Program, World, assert_same_run, metrics};

/// A configuration of distillation from a teacher at `checkpoint`, of the configuration `teacher.toml`.
fn student(world: &World, data: &Path, checkpoint: &Path, more: &[(&str, &str)]) -> Result<PathBuf> {
    let changes = World::distil(checkpoint);
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    world.config("student", data, &[&changes, more].concat())
}

fn refuses(world: &World, config: &Path, parts: &[&str]) -> Result<()> {
    let run = world.run("refused");
    for program in [Program::alone(), Program::alone().starting_ranks(2), Program::under_mpirun(2)] {
        program.train(config, &run).run()?.expect(2).expect_error(parts);
        assert!(!run.exists(), "a run folder was made");
    }
    Ok(())
}

#[test]
fn a_missing_teacher_is_answered_with_the_command_that_makes_it() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let missing = world.run("missing");
    let config = student(&world, &data, &missing, &[("teachers.robust.config", "\"configs/teacher.toml\"")])?;
    let command = format!("`iad-launch configs/teacher.toml --run {}`", missing.display());
    refuses(&world, &config, &["teachers.robust.checkpoint is missing", &command, "--with-teachers"])
}

#[test]
fn a_teacher_for_other_images_is_refused() -> Result<()> {
    let world = World::new()?;
    let grey = world.images("grey", Images { shape: [1, 16, 16], ..Images::colour(40) })?;
    let colour = world.images("colour", Images::colour(40))?;
    let config = student(&world, &colour, &world.teacher(&grey)?, &[])?;
    let parts = ["teachers.robust.checkpoint", "1x16x16", "3x16x16", "trained on the same data set"];
    refuses(&world, &config, &parts)
}

#[test]
fn a_teacher_of_other_classes_is_refused() -> Result<()> {
    let world = World::new()?;
    let seven = world.images("seven", Images { classes: 7, ..Images::colour(40) })?;
    let four = world.images("four", Images::colour(40))?;
    let config = student(&world, &four, &world.teacher(&seven)?, &[])?;
    refuses(&world, &config, &["teachers.robust.checkpoint", "7 classes", "4 classes"])
}

#[test]
fn a_truncated_teacher_is_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let teacher = world.teacher(&data)?;
    let config = student(&world, &data, &teacher, &[])?;
    let bytes = fs::read(&teacher)?;
    fs::write(&teacher, &bytes[..bytes.len() - 1000])?;
    refuses(&world, &config, &["teachers.robust.checkpoint", "final.safetensors", "copy the file again"])
}

#[test]
fn a_damaged_teacher_is_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let teacher = world.teacher(&data)?;
    let config = student(&world, &data, &teacher, &[])?;
    let mut bytes = fs::read(&teacher)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&teacher, bytes)?;
    refuses(&world, &config, &["teachers.robust.checkpoint", "final.safetensors", "damaged", "copy the file again"])
}

#[test]
fn a_file_that_is_no_teacher_is_refused() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = student(&world, &data, &data, &[])?;
    refuses(&world, &config, &["teachers.robust.checkpoint", "data.h5", "weights of this program"])
}

/// With a teacher made in passing or by a command of its own, on so many ranks, the student is the same.
fn made_in_passing(ranks: usize) -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let made = world.config("teacher", &data, &[("student.architecture", "\"resnet8\"")])?;
    let with = ("teachers.robust.config", format!("{:?}", made.display().to_string()));
    let teacher = world.run("teacher");
    let config = student(&world, &data, &teacher, &[(with.0, &with.1)])?;

    let run = world.run("student");
    let command = || Program::on(ranks).train(&config, &run).args(["--with-teachers"]);
    command().stop_after(2).run()?.expect(85);
    assert!(teacher.join("checkpoints/final.safetensors").is_file() && teacher.join("evaluation.json").is_file());
    assert!(run.join("checkpoints/step-00000002.safetensors").is_file());
    let taught = metrics(&teacher)?;
    command().run()?.expect(0);
    assert_eq!(taught, metrics(&teacher)?, "the teacher was trained a second time");

    let alone = world.run("alone");
    Program::on(ranks).train(&config, &alone).run()?.expect(0);
    assert_same_run(&alone, &run, "with the teacher made in passing")
}

#[test]
fn a_missing_teacher_is_trained_first() -> Result<()> {
    made_in_passing(1)
}

#[test]
fn a_missing_teacher_is_trained_first_on_two_ranks() -> Result<()> {
    made_in_passing(2)
}
