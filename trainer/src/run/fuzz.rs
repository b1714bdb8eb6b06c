//! Run folders with a changed file, as a start, a resumption and an evaluation read them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use datasets::UserError;
use datasets::damage::{Dice, change, change_text, inputs};

use crate::config::RunConfig;
use crate::run::checkpoints::newest;
use crate::run::folder::RunFolder;
use crate::run::inputs::{compare, record};
use crate::run::metrics::JsonLines;

const INPUTS: u64 = 500;

#[track_caller]
fn mistake<T>(result: Result<T>, input: u64) -> Option<T> {
    result.inspect_err(|error| assert!(error.is::<UserError>(), "input {input}: {error:#}")).ok()
}

/// Everything that is read of a run folder before it is changed.
fn read(folder: &RunFolder, config: &RunConfig, input: u64) -> bool {
    let found = mistake(folder.config(), input);
    let fits = mistake(folder.check(config), input);
    mistake(folder.earlier_configs(), input);
    folder.is_finished(found.as_ref().unwrap_or(config));
    folder.finished_weights();
    let contents = BTreeMap::from([("the images of data.train".to_string(), "other".to_string())]);
    mistake(compare(&folder.file("inputs.toml"), &contents), input);
    let length = JsonLines::length(&folder.file("metrics.jsonl")).unwrap();
    let resumed = mistake(newest(folder, length), input).flatten();
    found.is_some() && fits.is_some() && resumed.is_some()
}

#[test]
fn run_folders_with_a_changed_file_are_read_or_refused_by_name() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/runs/version-1/stopped");
    let place = tempfile::tempdir().unwrap();
    let folder = RunFolder::at(&place.path().join("run"));
    fs::create_dir_all(folder.path.join("checkpoints")).unwrap();
    let checkpoint = "checkpoints/step-00000004.safetensors";
    for name in ["run.toml", "metrics.jsonl", "environment.toml", checkpoint] {
        fs::copy(fixture.join(name), folder.file(name)).unwrap();
    }
    fs::copy(fixture.join("../finished/evaluation.json"), folder.file("evaluation.json")).unwrap();
    fs::copy(fixture.join("run.toml"), folder.file("run-1.toml")).unwrap();
    let contents = BTreeMap::from([("the images of data.train".to_string(), "other".to_string())]);
    record(&folder.file("inputs.toml"), &contents).unwrap();
    let config = folder.config().unwrap();
    assert!(read(&folder, &config, u64::MAX), "the folder as it should be");

    let names = ["run.toml", "run-1.toml", "inputs.toml", "metrics.jsonl", "evaluation.json", checkpoint];
    let mut taken = 0;
    for input in 0..inputs(INPUTS) {
        let mut dice = Dice::new(50, input);
        let path = folder.file(names[dice.below(names.len() as u64) as usize]);
        let whole = [fs::read(&path).unwrap()];
        let text = path.extension().is_none_or(|ending| ending != "safetensors");
        fs::write(&path, if text { change_text(&whole, &mut dice) } else { change(&whole, &mut dice) }).unwrap();
        taken += u64::from(read(&folder, &config, input));
        fs::write(&path, &whole[0]).unwrap();
    }
    assert!(taken > 0, "nothing was accepted");
}
