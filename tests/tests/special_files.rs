//! Pipes, devices, folders, files of holes and links in a circle in the place of every file that is read: each is named at
//! once, as a mistake of the user.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tests::{Images, Program, World};

/// What stands in the place of a file, by what it is.
fn things(world: &World) -> Result<Vec<(&'static str, PathBuf)>> {
    let [pipe, folder, holes, circle] = ["pipe", "folder", "holes", "circle"].map(|name| world.path(name));
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success(), "mkfifo {}", pipe.display());
    std::fs::create_dir(&folder)?;
    File::create(&holes)?.set_len(1 << 40)?;
    symlink(world.path("circle-2"), &circle)?;
    symlink(&circle, world.path("circle-2"))?;
    let device = PathBuf::from("/dev/zero");
    Ok(vec![("a pipe", pipe), ("a folder", folder), ("holes", holes), ("a circle", circle), ("a device", device)])
}

/// Asserts that the command fails within seconds, as a mistake of the user that names the path.
#[track_caller]
fn refused(what: &str, path: &Path, program: Program) -> Result<()> {
    let ended = program.limit(20).run()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    assert!(ended.code == Some(2), "{what}: code {:?}: {ended:?}", ended.code);
    ended.expect_error(&[&name]);
    Ok(())
}

fn program(arguments: &[&str]) -> Program {
    Program::alone().args(arguments)
}

/// The configuration of a run in which this key is the path.
fn config(world: &World, key: &str, path: &Path) -> Result<PathBuf> {
    let data = world.path("data.h5");
    let value = format!("{:?}", path.display().to_string());
    let mut changes = World::distil(&world.path("data.h5"));
    changes.retain(|(changed, _)| key.starts_with("teachers") || *changed == "student.architecture");
    changes.retain(|(changed, _)| *changed != key);
    let mut changes: Vec<(&str, &str)> = changes.iter().map(|(key, value)| (*key, &value[..])).collect();
    changes.push((key, &value));
    world.config("run", &data, &changes)
}

#[test]
fn a_run_names_what_is_no_file() -> Result<()> {
    let world = World::new()?;
    world.images("data", Images::colour(16))?;
    for (what, path) in things(&world)? {
        refused(what, &path, program(&["train"]).args([&path]))?;
        for key in ["data.train", "data.test", "student.checkpoint", "teachers.robust.checkpoint"] {
            let config = config(&world, key, &path)?;
            refused(&format!("{what} as {key}"), &path, Program::alone().train(&config, &world.run("run")))?;
        }
        // A run folder with such a thing as one of its files is in reading.rs and durable.rs.
        let config = config(&world, "data.train", &world.path("data.h5"))?;
        if what != "a folder" {
            refused(&format!("{what} as the run folder"), &path, Program::alone().train(&config, &path))?;
        }
    }
    Ok(())
}

#[test]
fn weights_and_evaluations_name_what_is_no_file() -> Result<()> {
    let world = World::new()?;
    let data = world.images("data", Images::colour(16))?;
    let run = world.run("trained");
    let config = world.config("trained", &data, &[("evaluation.suite", "[]")])?;
    Program::alone().train(&config, &run).run()?.expect(0);
    for (what, path) in things(&world)? {
        let to = world.path("new.safetensors");
        refused(what, &path, program(&["weights", "import"]).args([&path]).args(["--to".as_ref(), to.as_os_str()]))?;
        refused(what, &path, program(&["weights", "info"]).args([&path]))?;
        let export =
            program(&["weights", "export"]).args([&path]).args(["--to".as_ref(), world.path("a.pth").as_os_str()]);
        refused(what, &path, export)?;
        refused(what, &path, program(&["eval"]).args([&path]).args(["--data".as_ref(), data.as_os_str()]))?;
        let eval = program(&["eval", "--suite", "natural", "--data"]).args([&path, &run]);
        refused(&format!("{what} as --data"), &path, eval)?;
        assert!(!to.exists() && !world.path("a.pth").exists());
    }
    Ok(())
}

#[test]
fn what_is_shown_names_what_is_no_run_and_no_file() -> Result<()> {
    let world = World::new()?;
    // The others are in the tests above.
    for (what, path) in things(&world)?.into_iter().take(3) {
        for command in ["report", "metrics", "runs", "plan", "paper", "sbatch"] {
            refused(&format!("{command} of {what}"), &path, program(&[command]).args([&path]))?;
        }
        refused(&format!("compare of {what}"), &path, program(&["compare"]).args([&path, &path]))?;
        for command in ["info", "verify"] {
            refused(&format!("data {command} of {what}"), &path, program(&["data", command]).args([&path]))?;
        }
        for dataset in ["cifar10", "mnist", "image-folder", "npz"] {
            let to = world.path("new.h5");
            let import = program(&["data", "import", dataset, "--from"]).args([&path]);
            refused(&format!("{dataset} from {what}"), &path, import.args(["--to".as_ref(), to.as_os_str()]))?;
            assert!(!to.exists());
        }
    }
    Ok(())
}
