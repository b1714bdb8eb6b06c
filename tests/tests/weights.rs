//! Weights that go to PyTorch's format and come back, by the commands that a user types.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::{Images, Program, World, assert_same_run, header, student};

/// A data set and a finished teacher, WRN-10-1.
fn teacher(world: &World) -> Result<(PathBuf, PathBuf)> {
    let data = world.images("data", Images::colour(40))?;
    let network = ("student.architecture", "\"wrn-10-1\"");
    let config = world.config("teacher", &data, &[network, ("evaluation.suite", "[]")])?;
    let run = world.run("teacher");
    Program::alone().train(&config, &run).run()?.expect(0);
    Ok((data, run))
}

fn weights(arguments: &[&Path], to: &Path) -> Result<tests::Ended> {
    Program::alone().args(["weights"]).args(arguments).args(["--to".as_ref(), to.as_os_str()]).run()
}

/// The configuration of a student of the teacher at `checkpoint`.
fn config(world: &World, name: &str, data: &Path, checkpoint: &Path) -> Result<PathBuf> {
    let changes = World::distil(checkpoint);
    let changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
    world.config(name, data, &changes)
}

#[test]
fn a_teacher_of_pytorch_teaches_what_the_same_teacher_of_ours_does() -> Result<()> {
    let world = World::new()?;
    let (data, run) = teacher(&world)?;
    let given = world.path("bestpoint.pth");
    weights(&["export".as_ref(), &run], &given)?.expect(0);

    // Given directly, it is refused with the command that imports it. That command works.
    let ended =
        Program::alone().train(&config(&world, "direct", &data, &given)?, &world.run("direct")).run()?.expect(2);
    let ended = ended.expect_error(&["teachers.robust.checkpoint", "bestpoint.pth", "iad-launch weights import"]);
    let command = ended.said.split('`').find(|part| part.starts_with("iad-launch weights import"));
    let command: Vec<&str> = command.context("a command in the hint")?.split(' ').skip(1).collect();
    let place = command.iter().position(|word| *word == "--to").context("--to")? + 1;
    let made = PathBuf::from(command[place]);
    Program::alone().args(&command).run()?.expect(0);

    let original = run.join("checkpoints/final.safetensors");
    assert_eq!(student(&made)?, student(&original)?);
    let (found, expected) = (header(&made)?, header(&original)?);
    assert_eq!(found["form"], expected["form"]);
    assert_eq!(found["source"]["file"], "bestpoint.pth");
    let [ours, theirs] = [("ours", &original), ("theirs", &made)].map(|(name, checkpoint)| -> Result<PathBuf> {
        let run = world.run(name);
        Program::alone().train(&config(&world, name, &data, checkpoint)?, &run).run()?.expect(0);
        Ok(run)
    });
    assert_same_run(&ours?, &theirs?, "by an imported teacher")
}

#[test]
fn weights_are_described_and_nothing_is_overwritten() -> Result<()> {
    let world = World::new()?;
    let (data, run) = teacher(&world)?;
    for name in ["plain.pth", "plain.safetensors"] {
        let (exported, imported) = (world.path(name), world.path(&format!("{name}.imported")));
        weights(&["export".as_ref(), &run, "--weights".as_ref(), "latest".as_ref()], &exported)?.expect(0);
        let told = Program::alone().args(["weights".as_ref(), "info".as_ref(), exported.as_os_str()]).run()?.expect(0);
        assert!(told.said.contains("wrn-10-1 of 4 classes"), "{}", told.said);
        let import = ["import".as_ref(), exported.as_path(), "--data".as_ref(), &data];
        let said = weights(&import, &imported)?.expect(0).said;
        assert!(said.contains("wrn-10-1 for 3x16x16 images and 4 classes") && !said.contains("assumed"), "{said}");
        assert!(said.contains("left out the 12 tensors of sub_block1"), "{said}");

        let before = fs::read(&exported)?;
        weights(&["export".as_ref(), &run], &exported)?.expect(2).expect_error(&[name, "does not exist yet"]);
        weights(&import, &imported)?.expect(2).expect_error(&["imported", "does not exist yet"]);
        assert_eq!(fs::read(&exported)?, before);
    }
    Ok(())
}

#[test]
fn what_would_have_to_be_executed_is_refused_and_leaves_no_file() -> Result<()> {
    let world = World::new()?;
    let (given, made) = (world.path("given.pth.tar"), world.path("made.safetensors"));
    let witness = world.path("witness");
    let command = format!("touch {}", witness.display());
    let mut bytes =
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}U\x0dlittle_endian\x88s.".to_vec();
    bytes.extend([b"\x80\x02cposix\nsystem\nU", &[command.len() as u8][..], command.as_bytes(), b"\x85R."].concat());
    fs::write(&given, bytes)?;
    weights(&["import".as_ref(), &given], &made)?.expect(2).expect_error(&["given.pth.tar", "refused: posix.system"]);
    Program::alone().args(["weights".as_ref(), "info".as_ref(), given.as_os_str()]).run()?.expect(2);
    assert!(!made.exists() && !witness.exists());
    Ok(())
}

#[test]
fn a_normalised_student_is_trained_exported_and_imported_with_its_normalisation() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let changes = [
        ("student.architecture", "\"wrn-10-1\""),
        ("student.normalize", "{ mean = [0.5, 0.25, 0.5], std = [0.25, 0.5, 0.25] }"),
        ("evaluation.suite", "[\"natural\"]"),
    ];
    let run = world.run("normalised");
    Program::alone().train(&world.config("normalised", &data, &changes)?, &run).run()?.expect(0);
    let weights_of_run = run.join("checkpoints/final.safetensors");
    let form = header(&weights_of_run)?["form"].clone();
    assert_eq!(form["normalize"]["mean"], serde_json::json!([0.5, 0.25, 0.5]));

    // PyTorch's format keeps the normalisation. The folder of the target is created.
    let (exported, imported) = (world.path("new/exported.pth"), world.path("other/new/imported.safetensors"));
    weights(&["export".as_ref(), &run, "--weights".as_ref(), "final".as_ref()], &exported)?.expect(0);
    let said = weights(&["import".as_ref(), &exported, "--data".as_ref(), &data], &imported)?.expect(0).said;
    assert!(said.contains("normalises its images by mean [0.5, 0.25, 0.5]"), "{said}");
    assert!(said.contains("images of its test split"), "{said}");
    assert_eq!(header(&imported)?["form"], form);
    assert_eq!(student(&imported)?, student(&weights_of_run)?);

    // A run folder is described by its weights.
    let told = Program::alone().args(["weights".as_ref(), "info".as_ref(), run.as_os_str()]).run()?.expect(0);
    assert!(told.said.contains("normalised by mean [0.5, 0.25, 0.5]"), "{}", told.said);
    let empty = world.path("new");
    Program::alone().args(["weights".as_ref(), "info".as_ref(), empty.as_os_str()]).run()?.expect(2);

    // A checkpoint of PyTorch that is to be evaluated is answered with the command that imports it.
    let eval = ["eval".as_ref(), exported.as_os_str(), "--data".as_ref(), data.as_os_str()];
    let ended = Program::alone().args(eval).run()?.expect(2);
    ended.expect_error(&["exported.pth", "an archive of torch.save", "iad-launch weights import", "--image 3x16x16"]);
    Ok(())
}

#[test]
fn a_missing_teacher_names_the_import() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(40))?;
    let config = config(&world, "student", &data, &world.path("robust.safetensors"))?;
    let ended = Program::alone().train(&config, &world.run("student")).run()?.expect(2);
    ended.expect_error(&["teachers.robust.checkpoint", "missing", "iad-launch weights import FILE --to"]);
    Ok(())
}
