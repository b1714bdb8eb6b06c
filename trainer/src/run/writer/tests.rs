//! What a checkpoint speaks of is on the disk before it, and what no disk takes is kept.

use std::fs;

use tch::Tensor;

use super::*;
use crate::config::CheckpointConfig;
use crate::model::ModelSpec;
use crate::run::events::Event;
use crate::run::metrics::{JsonLines, Sink as _};
use crate::weights::checkpoint::Progress;

struct Scene {
    _place: tempfile::TempDir,
    folder: RunFolder,
    journal: JsonLines,
    writer: Writer,
    activity: Activity,
}

impl Scene {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let folder = RunFolder::at(place.path());
        fs::create_dir(place.path().join("checkpoints")).unwrap();
        let journal = JsonLines::open(&folder.file("metrics.jsonl"), 0).unwrap();
        let config = CheckpointConfig { keep_last: 1, ..CheckpointConfig::default() };
        let activity = Activity::default();
        let writer = Writer::of(&folder, Retention::new(&config, 1, None), &activity).unwrap();
        Self { _place: place, folder, journal, writer, activity }
    }

    fn keep(&mut self, name: &str, step: u64) {
        self.writer.keep(WeightsFile { name: name.into(), contents: contents(step) });
    }

    /// Begins to save a checkpoint after `step`, with the weights that are kept.
    fn begin(&mut self, step: u64) {
        let metrics = self.journal.begin_flush().unwrap();
        let checkpoint = Some(Checkpoint { contents: contents(step), metrics, spared: None });
        let weights = std::mem::take(&mut self.writer.waiting);
        self.writer.thread.begin(Save { weights, checkpoint }).unwrap();
    }

    /// Waits for the save. Returns what is not saved.
    fn end(&mut self) -> Option<String> {
        let Saved { left, metrics, problem, .. } = self.writer.thread.wait().unwrap().expect("a save under way");
        metrics.into_iter().for_each(|(bytes, flushed)| self.journal.end_flush(bytes, flushed));
        self.writer.take_back(left);
        problem.map(|(what, error)| format!("{what}: {error:#}"))
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path.join("checkpoints")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn step_of(&self, name: &str) -> u64 {
        checkpoint::read(&self.folder.weights(name)).unwrap().0.progress.step
    }
}

fn contents(step: u64) -> Contents {
    let form = ModelSpec::new("resnet8".parse().unwrap(), [1, 28, 28], 10);
    let progress = Progress { step, ..Progress::default() };
    let header = Header { progress, ..Header::new(form, "hash".into(), 8) };
    Contents::new(header, &Tensors::from([("student/step".to_string(), Tensor::from(step as i64))])).unwrap()
}

#[test]
fn a_save_writes_all_and_removes_what_is_old() {
    let mut scene = Scene::new();
    scene.journal.record(&Event::Warned { message: "one".into() }).unwrap();
    scene.keep("best", 1);
    scene.begin(1);
    // The run goes on meanwhile.
    scene.journal.record(&Event::Warned { message: "two".into() }).unwrap();
    scene.keep("best", 2);
    assert_eq!(scene.end(), None);
    assert_eq!(
        (scene.files(), scene.step_of("best")),
        (vec!["best.safetensors".into(), "step-00000001.safetensors".into()], 1)
    );
    scene.begin(2);
    assert_eq!(scene.end(), None);
    assert_eq!(
        (scene.files(), scene.step_of("best")),
        (vec!["best.safetensors".into(), "step-00000002.safetensors".into()], 2)
    );
    let text = fs::read_to_string(scene.folder.file("metrics.jsonl")).unwrap();
    assert!(text.contains("one") && text.contains("two"), "{text}");
}

#[test]
fn a_checkpoint_waits_for_the_weights_it_speaks_of_and_newer_ones_take_their_place() {
    let mut scene = Scene::new();
    let beside = scene.folder.path.join("checkpoints/best.safetensors.partial");
    fs::create_dir(&beside).unwrap();
    scene.keep("best", 1);
    scene.keep("ema", 1);
    scene.begin(1);
    scene.keep("best", 2);
    let problem = scene.end().unwrap();
    assert!(problem.contains("no checkpoint is saved after step 1, for the best weights are not saved"), "{problem}");
    assert_eq!(scene.files(), ["best.safetensors.partial"]);
    fs::remove_dir(&beside).unwrap();
    let names: Vec<&str> = scene.writer.waiting.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["ema", "best"]);
    scene.begin(2);
    assert_eq!(scene.end(), None);
    assert_eq!((scene.step_of("best"), scene.step_of("ema"), scene.files().len()), (2, 1, 3));
}

#[test]
fn a_checkpoint_that_fails_costs_no_older_one() {
    let mut scene = Scene::new();
    scene.begin(1);
    assert_eq!(scene.end(), None);
    scene.activity.inject("step=2,phase=save,kind=io-error".parse().unwrap(), std::sync::Arc::new(|_| {}));
    scene.begin(2);
    let problem = scene.end().unwrap();
    assert!(problem.contains("step 2") && problem.contains("injected input/output error"), "{problem}");
    assert_eq!(scene.files(), ["step-00000001.safetensors"]);
    scene.begin(3);
    assert_eq!(scene.end(), None);
    assert_eq!(scene.files(), ["step-00000003.safetensors"]);
}

/// The end of a run, also by an error, leaves no half of a file.
#[test]
fn dropping_the_writer_ends_the_save_under_way() {
    let mut scene = Scene::new();
    let fault = "step=1,phase=save,kind=slow,ms=100".parse().unwrap();
    scene.activity.inject(fault, std::sync::Arc::new(|_| {}));
    scene.begin(1);
    drop(scene.writer);
    assert!(checkpoint::read(&scene.folder.checkpoint(1)).is_ok());
}
