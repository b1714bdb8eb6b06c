//! A run is not lost: what cannot be read or written, is torn, missing or of another kind, is named, and nothing begins anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Ended, Images, Program, WEIGHTS_OF_EVERY_KIND, World, assert_same_run, metrics};

/// A run of two epochs of three steps, with a checkpoint after each epoch, and weights of every kind.
struct Short {
    world: World,
    config: PathBuf,
}

impl Short {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let data = world.images("data", Images::colour(48))?;
        let changes = [&WEIGHTS_OF_EVERY_KIND[..], &[("epochs", "2"), ("evaluation.final", "true")]].concat();
        let config = world.config("short", &data, &changes)?;
        Ok(Self { world, config })
    }

    fn program(&self, run: &Path) -> Program {
        Program::alone().train(&self.config, run)
    }

    fn whole(&self) -> Result<PathBuf> {
        let run = self.world.run("whole");
        self.program(&run).run()?.expect(0);
        Ok(run)
    }

    /// A run that was stopped after step 5; its checkpoints are those after steps 3 and 5.
    fn stopped(&self, name: &str) -> Result<PathBuf> {
        let run = self.world.run(name);
        self.program(&run).stop_after(5).run()?.expect(85);
        ensure!(checkpoints(&run)? == ["step-00000003.safetensors", "step-00000005.safetensors"]);
        Ok(run)
    }
}

fn checkpoints(run: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(run.join("checkpoints"))?.collect::<std::io::Result<Vec<_>>>()?;
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> =
        names.filter(|name| name.starts_with("step-") && name.ends_with(".safetensors")).collect();
    names.sort();
    Ok(names)
}

/// The warnings but that of a busy machine.
fn warnings(ended: &Ended) -> Vec<&str> {
    let all = ended.said.lines().filter(|line| line.contains("warning: "));
    all.filter(|line| !line.contains("waiting for images")).collect()
}

fn evaluation(run: &Path) -> Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(run.join("evaluation.json"))?)?)
}

/// Not even root can read a folder as a file.
#[test]
fn a_checkpoint_that_cannot_be_read_ends_the_start_and_nothing_changes() -> Result<()> {
    let short = Short::new()?;
    let (whole, run) = (short.whole()?, short.stopped("unreadable")?);
    let newest = run.join("checkpoints/step-00000005.safetensors");
    let aside = run.join("aside");
    fs::rename(&newest, &aside)?;
    fs::create_dir(&newest)?;
    let before = (fs::read(run.join("metrics.jsonl"))?, checkpoints(&run)?);
    short.program(&run).run()?.expect(2).expect_error(&["step-00000005.safetensors", "a folder", "move this one away"]);
    assert_eq!((fs::read(run.join("metrics.jsonl"))?, checkpoints(&run)?), before);

    fs::remove_dir(&newest)?;
    fs::rename(&aside, &newest)?;
    let ended = short.program(&run).run()?.expect(0);
    assert!(ended.said.contains("going on from step 5"), "{}", ended.said);
    assert_same_run(&whole, &run, "once the checkpoint could be read again")
}

#[test]
fn damaged_checkpoints_alone_end_the_start_with_the_way_out() -> Result<()> {
    let short = Short::new()?;
    let (whole, run) = (short.whole()?, short.stopped("damaged")?);
    for name in checkpoints(&run)? {
        fs::write(run.join("checkpoints").join(name), "torn")?;
    }
    let before = fs::read(run.join("metrics.jsonl"))?;
    short.program(&run).run()?.expect(2).expect_error(&["is damaged", "to begin the run anew, delete ", "--run"]);
    assert_eq!(fs::read(run.join("metrics.jsonl"))?, before);
    for name in checkpoints(&run)? {
        fs::remove_file(run.join("checkpoints").join(name))?;
    }
    short.program(&run).run()?.expect(0);
    assert_same_run(&whole, &run, "begun anew")
}

#[test]
fn metrics_that_lost_their_end_lead_to_an_older_checkpoint() -> Result<()> {
    let short = Short::new()?;
    let (whole, run) = (short.whole()?, short.stopped("short")?);
    let path = run.join("metrics.jsonl");
    let bytes = fs::read(&path)?;
    fs::write(&path, &bytes[..bytes.len() - 10])?;
    let ended = short.program(&run).run()?.expect(0);
    assert!(ended.said.contains("going on from step 3"), "{}", ended.said);
    let warnings = warnings(&ended);
    assert!(warnings.len() == 1 && warnings[0].contains("metrics.jsonl had"), "{}", ended.said);
    assert_same_run(&whole, &run, "from the checkpoint that fits")
}

#[test]
fn missing_metrics_end_the_start() -> Result<()> {
    let short = Short::new()?;
    let run = short.stopped("without")?;
    fs::remove_file(run.join("metrics.jsonl"))?;
    short.program(&run).run()?.expect(2).expect_error(&["put the whole metrics.jsonl back"]);
    assert_eq!(checkpoints(&run)?.len(), 2);
    Ok(())
}

#[test]
fn lost_best_weights_are_noticed_before_training() -> Result<()> {
    let short = Short::new()?;
    for damage in ["missing", "damaged"] {
        let run = short.stopped(damage)?;
        let best = run.join("checkpoints/best.safetensors");
        match damage {
            "missing" => fs::remove_file(&best)?,
            _ => fs::write(&best, "torn")?,
        }
        // It stops before the next step, and the warning is there all the same.
        let ended = short.program(&run).stop_after(6).run()?.expect(85);
        let warnings = warnings(&ended);
        assert!(warnings.len() == 1 && warnings[0].contains(damage) && warnings[0].contains("best"), "{}", ended.said);
        short.program(&run).run()?.expect(0);
        assert_eq!(evaluation(&run)?["weights"], "best");
    }
    Ok(())
}

#[test]
fn a_torn_evaluation_is_made_again() -> Result<()> {
    let short = Short::new()?;
    let run = short.whole()?;
    let (events, before) = (metrics(&run)?, evaluation(&run)?);
    let text = fs::read_to_string(run.join("evaluation.json"))?;
    fs::write(run.join("evaluation.json"), &text[..text.len() / 2])?;
    let ended = short.program(&run).run()?.expect(0);
    let warnings = warnings(&ended);
    assert!(warnings.len() == 1 && warnings[0].contains("evaluation.json is damaged"), "{}", ended.said);
    for key in ["weights", "weights_sha256", "attacks", "worst_case"] {
        assert_eq!(evaluation(&run)?[key], before[key], "{key}");
    }
    assert_eq!(metrics(&run)?, events);
    Ok(())
}

/// A folder in the place of a file can be written by nobody, like a file on a read-only disk.
#[test]
fn a_finished_run_on_a_disk_that_takes_nothing_shows_its_results() -> Result<()> {
    let short = Short::new()?;
    let run = short.whole()?;
    for file in ["run.lock", "report.html"] {
        fs::remove_file(run.join(file))?;
        fs::create_dir(run.join(file))?;
    }
    let ended = short.program(&run).run()?.expect(0);
    assert!(ended.said.contains("is finished") && ended.said.contains("natural"), "{}", ended.said);
    Ok(())
}

#[test]
fn a_save_that_fails_does_not_end_the_run() -> Result<()> {
    let short = Short::new()?;
    let (whole, run) = (short.whole()?, short.world.run("full"));
    // A folder in the place of the file beside the first checkpoint: it cannot be written, the second one can.
    let partial = run.join("checkpoints/step-00000003.safetensors.partial");
    short.program(&run).stop_after(1).run()?.expect(85);
    fs::create_dir(&partial)?;
    let ended = short.program(&run).run()?.expect(0);
    let warnings = warnings(&ended);
    assert!(warnings.len() == 1 && warnings[0].contains("no checkpoint is saved after step 3"), "{}", ended.said);
    assert_eq!(checkpoints(&run)?, ["step-00000001.safetensors", "step-00000006.safetensors"]);
    fs::remove_dir(partial)?;
    let events: Vec<Value> = metrics(&run)?.into_iter().filter(|event| event["event"] != "warned").collect();
    assert_eq!(events, metrics(&whole)?);
    same_files(&whole, &run)
}

/// The file system takes weights alone and cuts every checkpoint short, as a disk that is nearly full.
#[test]
fn a_disk_too_full_for_checkpoints_does_not_end_the_run() -> Result<()> {
    let short = Short::new()?;
    let (whole, run) = (short.whole()?, short.world.run("full"));
    let size = |name: &str| Ok::<_, anyhow::Error>(fs::metadata(whole.join("checkpoints").join(name))?.len());
    let limit = (size("best.safetensors")? + size("step-00000006.safetensors")?) / 2 / 1024;
    let ended = Program::with_files_up_to(limit).train(&short.config, &run).run()?.expect(0);
    let warnings = warnings(&ended);
    assert!(warnings.len() == 2 && warnings[1].contains("no checkpoint is saved after step 6"), "{}", ended.said);
    assert_eq!(checkpoints(&run)?, [""; 0]);
    assert!(!run.join("checkpoints/step-00000006.safetensors.partial").exists());
    same_files(&whole, &run)
}

/// Weights that no disk takes are kept, and the checkpoint that speaks of them waits with them.
#[test]
fn best_weights_that_cannot_be_written_fail_the_end_and_are_made_again() -> Result<()> {
    let short = Short::new()?;
    let (whole, run) = (short.whole()?, short.world.run("full"));
    let partial = run.join("checkpoints/best.safetensors.partial");
    short.program(&run).stop_after(1).run()?.expect(85);
    fs::create_dir(&partial)?;
    let ended = short.program(&run).run()?.expect(1);
    assert!(ended.said.contains("the best weights are not saved"), "{}", ended.said);
    assert_eq!(checkpoints(&run)?, ["step-00000001.safetensors"]);
    fs::remove_dir(partial)?;
    short.program(&run).run()?.expect(0);
    assert_same_run(&whole, &run, "once the disk took it")?;
    same_files(&whole, &run)
}

/// No clock is in the weights: equal runs leave equal files, whatever interrupted them.
fn same_files(one: &Path, other: &Path) -> Result<()> {
    for name in ["best", "final", "ema"] {
        let read = |run: &Path| {
            let path = run.join(format!("checkpoints/{name}.safetensors"));
            fs::read(&path).with_context(|| path.display().to_string())
        };
        assert!(read(one)? == read(other)?, "{name}");
    }
    Ok(())
}

#[test]
fn an_interrupted_run_leaves_the_same_files_of_weights() -> Result<()> {
    let short = Short::new()?;
    let (whole, run) = (short.whole()?, short.stopped("stopped")?);
    short.program(&run).run()?.expect(0);
    same_files(&whole, &run)
}

fn pipe(path: &Path) -> Result<()> {
    let made = Command::new("mkfifo").arg(path).status()?;
    ensure!(made.success(), "mkfifo {}", path.display());
    Ok(())
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_at_once() -> Result<()> {
    let short = Short::new()?;
    let fifo = short.world.path("pipe.toml");
    pipe(&fifo)?;
    let run = short.world.run("piped");
    Program::alone().limit(30).train(&fifo, &run).run()?.expect(2).expect_error(&["a pipe or a device"]);
    let data = short.program(&run).set("data.train", fifo.display()).limit(30);
    data.run()?.expect(2).expect_error(&["data.train", "a pipe or a device"]);

    let run = short.stopped("stopped")?;
    let newest = run.join("checkpoints/step-00000005.safetensors");
    fs::remove_file(&newest)?;
    pipe(&newest)?;
    short.program(&run).limit(30).run()?.expect(2).expect_error(&["step-00000005", "a pipe or a device"]);
    Ok(())
}

#[test]
fn checkpoints_of_every_so_many_epochs_are_kept() -> Result<()> {
    let short = Short::new()?;
    let run = short.world.run("kept");
    let program = short.program(&run).set("epochs", 5).set("checkpoint.keep_every", 2).set("checkpoint.keep_last", 1);
    program.run()?.expect(0);
    assert_eq!(checkpoints(&run)?, [6, 12, 15].map(|step| format!("step-{step:08}.safetensors")));
    Ok(())
}

/// The checkpoints that the images of the selection rate best stay, also those of a session before.
#[test]
fn the_best_checkpoints_are_kept() -> Result<()> {
    let short = Short::new()?;
    let run = short.world.run("kept");
    let start = || {
        let program = short.program(&run).set("epochs", 5).set("evaluation.held_out", 0.4);
        program.set("checkpoint.keep_best", 2).set("checkpoint.keep_last", 1)
    };
    start().stop_after(7).run()?.expect(85);
    start().run()?.expect(0);
    let correct = |event: &Value| event["attacks"].as_array()?.last()?["correct"].as_u64();
    let evaluated = metrics(&run)?.into_iter().filter(|event| event["event"] == "evaluated");
    let mut best: Vec<(u64, u64)> =
        evaluated.filter_map(|event| Some((u64::MAX - correct(&event)?, event["step"].as_u64()?))).collect();
    ensure!(best.len() == 5, "not an evaluation of each epoch: {best:?}");
    best.sort_unstable();
    let last = best.iter().map(|(_, step)| *step).max();
    let mut kept: Vec<u64> = best.iter().take(2).map(|(_, step)| *step).chain(last).collect();
    kept.sort_unstable();
    kept.dedup();
    let names: Vec<String> = kept.iter().map(|step| format!("step-{step:08}.safetensors")).collect();
    assert_eq!(checkpoints(&run)?, names, "{best:?}");
    let without = short.program(&short.world.run("none")).set("evaluation.selection", "none");
    without.set("checkpoint.keep_best", 1).run()?.expect(2).expect_error(&["checkpoint.keep_best", "selection"]);
    Ok(())
}
