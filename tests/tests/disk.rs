//! Every system call of a run's files fails once, fails for good, is cut short, or is the last one before a crash: the
//! checkpoints before it stay whole, the run goes on or says why not, and in the end it is the run that nobody disturbed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    DiskCall, DiskFault, Draws, Ended, Images, Program, WEIGHTS_OF_EVERY_KIND, World, disk_calls, metrics, tell,
    tensors,
};

/// A run of two epochs of three steps, with best and averaged weights and a checkpoint after each epoch.
struct Scene {
    world: World,
    config: PathBuf,
    whole: PathBuf,
    calls: Vec<DiskCall>,
}

/// The files that must not be lost: weights, checkpoints and metrics.
fn precious(run: &Path) -> Vec<PathBuf> {
    vec![run.join("checkpoints"), run.join("metrics.jsonl")]
}

impl Scene {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let data = world.images("data", Images::colour(48))?;
        let changes = [&WEIGHTS_OF_EVERY_KIND[..], &[("epochs", "2"), ("checkpoint.keep_last", "1")]].concat();
        let config = world.config("config", &data, &changes)?;
        let (whole, log) = (world.run("whole"), world.path("whole.log"));
        Program::alone().train(&config, &whole).with_disk(&precious(&whole), &log, None).run()?.expect(0);
        let calls = disk_calls(&log)?;
        let seen = |name: &str| calls.iter().any(|call| call.name == name);
        ensure!(
            ["open", "write", "pwrite", "fsync", "truncate", "rename", "unlink"].into_iter().all(seen),
            "{calls:?}"
        );
        Ok(Self { world, config, whole, calls })
    }

    /// Runs into the fault and resumes without it.
    fn strike(&self, fault: DiskFault) -> Result<()> {
        let name = format!("{}-{}-{}", fault.kind, fault.call, if fault.lasts { "on" } else { "once" });
        let (run, log) = (self.world.run(&name), self.world.path(&format!("{name}.log")));
        let program = Program::alone().train(&self.config, &run).with_disk(&precious(&run), &log, Some(fault));
        let ended = program.run()?;
        let calls = disk_calls(&log)?;
        let struck = calls.iter().find(|call| !call.fault.is_empty()).with_context(|| format!("{name}: no fault"))?;
        let what = format!("{name}, {} of {}", struck.name, struck.path.display());
        is_told(fault, struck, &ended, &what);
        if ended.code != Some(0) {
            let resumed = Program::alone().train(&self.config, &run).run()?.expect(0);
            let from = last_saved(&calls);
            // After the last line of metrics.jsonl nothing is left to do.
            let mut signs = (from..=6).map(|step| format!("going on from step {step}")).chain(["is finished".into()]);
            let goes_on = signs.any(|sign| resumed.said.contains(&sign));
            // The last flush comes after all that is recorded.
            let finished = resumed.said.contains("is finished; its results");
            assert!(from == 0 || goes_on || finished, "{what}: saved after step {from}, and then:\n{}", resumed.said);
        }
        self.assert_undisturbed(&run, &what)?;
        fs::remove_dir_all(run)?;
        Ok(())
    }

    /// Asserts that the run at `run` is that which nobody disturbed, but for warnings.
    fn assert_undisturbed(&self, run: &Path, what: &str) -> Result<()> {
        let events = |run: &Path| -> Result<Vec<Value>> {
            Ok(metrics(run)?.into_iter().filter(|event| event["event"] != "warned").collect())
        };
        assert_eq!(events(run)?, events(&self.whole)?, "{what}");
        for name in ["best", "final", "ema", "step-00000006"] {
            let read = |run: &Path| tensors(&run.join(format!("checkpoints/{name}.safetensors")));
            let refused = what.starts_with("eio") || what.starts_with("enospc");
            if name.starts_with("step") && refused && !run.join(format!("checkpoints/{name}.safetensors")).exists() {
                continue; // The only save of this step failed, and the run went on to its end.
            }
            assert!(read(run)? == read(&self.whole)?, "{what}: {name}");
        }
        Ok(())
    }
}

/// The step of the last checkpoint that was renamed into its place and whose folder was flushed. Lines of metrics.jsonl may be
/// written between the two, by another thread.
fn last_saved(calls: &[DiskCall]) -> u64 {
    let flushed = |(place, rename): (usize, &DiskCall)| {
        let folder = rename.path.parent();
        let flush = calls[place..].iter().find(|call| call.name == "fsync" && Some(call.path.as_path()) == folder);
        let saved = rename.name == "rename" && rename.fault.is_empty() && flush?.fault.is_empty();
        saved.then(|| rename.path.file_stem()?.to_str()?.strip_prefix("step-")?.parse().ok()).flatten()
    };
    calls.iter().enumerate().filter_map(flushed).max().unwrap_or(0)
}

/// Asserts that the program ended as it should, and said what went wrong with which file.
fn is_told(fault: DiskFault, struck: &DiskCall, ended: &Ended, what: &str) {
    let said = &ended.said;
    match fault.kind {
        "kill" => assert_eq!(ended.code, None, "{what}:\n{said}"),
        "short" => assert_eq!(ended.code, Some(0), "{what}:\n{said}"),
        _ => {
            let error = if fault.kind == "eio" { "os error 5" } else { "os error 28" };
            // An old checkpoint that cannot be removed costs space alone.
            assert!(struck.name == "unlink" || said.contains(error), "{what}:\n{said}");
            let codes: &[Option<i32>] = match (fault.lasts, struck.name.as_str()) {
                (true, _) => &[Some(1)],
                (false, "open" | "truncate") if struck.path.ends_with("metrics.jsonl") => &[Some(1)],
                // The last flush of the run has no later one that could try again.
                (false, "fsync") if struck.path.ends_with("metrics.jsonl") => &[Some(0), Some(1)],
                (false, _) => &[Some(0)],
            };
            assert!(codes.contains(&ended.code), "{what}: code {:?}:\n{said}", ended.code);
            if ended.code == Some(0) && struck.name != "unlink" {
                assert!(said.contains("warning: ") && said.contains("The run goes on"), "{what}:\n{said}");
            }
        }
    }
}

/// The faults that a call can have.
fn faults(call: &DiskCall) -> Vec<DiskFault> {
    let fault = |kind, lasts| DiskFault { call: call.number, kind, lasts };
    let mut all = vec![
        fault("kill", false),
        fault("enospc", false),
        fault("eio", false),
        fault("enospc", true),
        fault("eio", true),
    ];
    if call.name.contains("write") {
        all.push(fault("short", false));
    }
    all
}

/// Every second call from the one of this number on, with one fault each, drawn; with all of them if `IAD_DISK=all`.
fn every_second_call(from: usize) -> Result<()> {
    let mut draws = Draws::told("disk");
    let every_fault = std::env::var("IAD_DISK").is_ok_and(|value| value == "all");
    let scene = Scene::new()?;
    let (mut struck, mut calls) = (0, 0);
    for call in scene.calls.iter().skip(from).step_by(2) {
        let all = faults(call);
        let drawn = draws.below(all.len() as u64) as usize;
        calls += 1;
        let chosen = if every_fault { &all[..] } else { &all[drawn..=drawn] };
        for fault in chosen {
            scene.strike(*fault).with_context(|| format!("IAD_FAULT_SEED={}", draws.seed))?;
            struck += 1;
        }
    }
    tell(&format!("disk: {struck} faults at {calls} calls, nothing lost"));
    Ok(())
}

#[test]
fn no_odd_call_that_fails_costs_anything() -> Result<()> {
    every_second_call(0)
}

#[test]
fn no_even_call_that_fails_costs_anything() -> Result<()> {
    every_second_call(1)
}
