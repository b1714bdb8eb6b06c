//! Run folders that earlier versions of the program left behind are read, resumed and reported by this one.
//!
//! `fixtures/runs/version-1` holds a configuration, its images, the finished run of it, and the same run stopped after
//! four of its six steps. Both were made by the version before the folders of the code had an order, on one rank.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use tests::{Program, World, checkout, header, metrics};

/// A copy of the fixture in a world of its own.
fn copied(world: &World) -> Result<std::path::PathBuf> {
    let folder = world.path("version-1");
    copy(&checkout().join("tests/fixtures/runs/version-1"), &folder)?;
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let (path, target) = (entry.as_ref().map(fs::DirEntry::path), entry.as_ref().map(fs::DirEntry::file_name));
        let (Ok(path), Ok(name)) = (path, target) else { continue };
        let target = to.join(name);
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

fn evaluation(run: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(run.join("evaluation.json"))?)?)
}

fn keys(value: &Value) -> Vec<&String> {
    value.as_object().into_iter().flat_map(|object| object.keys()).collect()
}

/// The steps taken before the stop stay as they were; what follows rounds as this processor does.
#[test]
fn a_stopped_run_is_resumed_to_its_end() -> Result<()> {
    let world = World::new()?;
    let folder = copied(&world)?;
    let (stopped, finished) = (folder.join("stopped"), folder.join("finished"));
    let before = fs::read(stopped.join("metrics.jsonl"))?;
    let resolved = fs::read(stopped.join("run.toml"))?;
    Program::alone().within(&folder).args(["config.toml", "--run", "stopped"]).run()?.expect(0);

    assert!(fs::read(stopped.join("metrics.jsonl"))?.starts_with(&before), "earlier records changed");
    assert_eq!(fs::read(stopped.join("run.toml"))?, resolved);
    let events = |run: &Path| -> Result<Vec<(String, Option<u64>)>> {
        let all = metrics(run)?.into_iter().filter(|event| event["event"] != "warned");
        Ok(all.map(|event| (event["event"].to_string(), event["step"].as_u64())).collect())
    };
    assert_eq!(events(&stopped)?, events(&finished)?);
    let (mine, theirs) = (
        header(&stopped.join("checkpoints/final.safetensors"))?,
        header(&finished.join("checkpoints/final.safetensors"))?,
    );
    let mut names = keys(&mine);
    names.retain(|name| *name != "class_names");
    assert_eq!(names, keys(&theirs), "class names came later, and nothing else");
    for key in ["form", "config", "progress", "global_batch"] {
        assert_eq!(mine[key], theirs[key], "{key}");
    }
    // Format 2 has the hash of the whole file where format 1 has that of the tensors.
    assert_eq!((mine["format"].as_u64(), theirs["format"].as_u64()), (Some(2), Some(1)));
    assert_eq!(keys(&evaluation(&stopped)?), keys(&evaluation(&finished)?));
    Ok(())
}

#[test]
fn a_finished_run_shows_its_results_and_nothing_in_it_changes() -> Result<()> {
    let world = World::new()?;
    let folder = copied(&world)?;
    let finished = folder.join("finished");
    let contents = || -> Result<Vec<Vec<u8>>> {
        ["run.toml", "metrics.jsonl", "evaluation.json", "environment.toml", "checkpoints/final.safetensors"]
            .iter()
            .map(|name| Ok(fs::read(finished.join(name))?))
            .collect()
    };
    let before = contents()?;
    let ended = Program::alone().within(&folder).args(["config.toml", "--run", "finished"]).run()?.expect(0);
    assert!(ended.said.contains("is finished"), "{}", ended.said);
    Program::alone().within(&folder).args(["report", "finished"]).run()?.expect(0);
    Program::alone().within(&folder).args(["eval", "finished", "--suite", "natural", "--batch", "32"]).run()?.expect(0);
    assert_eq!(contents()?, before);
    Ok(())
}
