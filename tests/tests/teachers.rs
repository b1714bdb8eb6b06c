//! Teachers: those that do not fit are refused in time, and missing ones are trained first.

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
    let run = world.run("refused");
    for program in [Program::alone(), Program::alone().starting_ranks(2), Program::under_mpirun(2)] {
        let ended = program.train(&config, &run).args(["--no-teachers"]).run()?.expect(2);
        ended.expect_error(&["teachers.robust.checkpoint is missing", &command, "--no-teachers"]);
        assert!(!run.exists(), "a run folder was made");
    }
    // Without that option it would be trained, but the file that makes it is not there.
    refuses(&world, &config, &["teachers.robust.checkpoint is missing", &command])
}

/// `teachers.NAME.set` changes the configuration of a teacher; a run of another configuration is refused in its place.
#[test]
fn set_reaches_a_teacher_where_it_is_told_to() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let made = world.config("teacher", &data, &[("student.architecture", "\"resnet8\"")])?;
    let made = format!("{:?}", made.display().to_string());
    let teacher = world.run("teacher");
    let config = student(&world, &data, &teacher, &[("teachers.robust.config", &made)])?;
    let run = world.run("student");
    let command = |change: (&str, &str)| {
        Program::alone()
            .train(&config, &run)
            .set("seed", 3)
            .set(change.0, change.1)
            .set("teachers.robust.set.attack.steps", 1)
    };
    let ended = command(("teachers.robust.set.seed", "5")).run()?.expect(0);
    let told = ["is trained first", "1 epoch of 4", "FLOP", "--no-teachers", "--set teachers.robust.set.KEY=VALUE"];
    assert!(told.iter().all(|part| ended.said.contains(part)), "{}", ended.said);
    let resolved = fs::read_to_string(teacher.join("run.toml"))?;
    assert!(resolved.contains("seed = 5") && resolved.contains("steps = 1"), "{resolved}");
    assert!(fs::read_to_string(run.join("run.toml"))?.contains("seed = 3"));
    let ended = command(("teachers.robust.set.seed", "6")).run()?.expect(2);
    ended.expect_error(&["seed = 5 there, 6 now", "teachers.robust.checkpoint=runs/OTHER"]);
    Ok(())
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
    let config = student(&world, &seven, &world.teacher(&four)?, &[])?;
    refuses(&world, &config, &["teachers.robust.checkpoint", "3 of 7 classes unknown to it: pattern 4", "pattern 0"])
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

/// A student is the same whether its teacher is trained first or by a command of its own, on `ranks` ranks.
fn made_in_passing(ranks: usize) -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let made = world.config("teacher", &data, &[("student.architecture", "\"resnet8\"")])?;
    let with = ("teachers.robust.config", format!("{:?}", made.display().to_string()));
    let teacher = world.run("teacher");
    let config = student(&world, &data, &teacher, &[(with.0, &with.1)])?;

    let run = world.run("student");
    let command = || Program::on(ranks).train(&config, &run);
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
