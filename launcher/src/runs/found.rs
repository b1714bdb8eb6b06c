//! The runs in a folder: their state, progress, best numbers and size.

use std::fs::{self, TryLockError};
use std::path::{Path, PathBuf};

use datasets::open_regular;
use serde::Serialize;
use trainer::evaluate::Accuracy;
use trainer::run::folder::RunFolder;

use crate::report::{RecordedRun, percentage};

/// Folders below the one that was asked for.
const DEPTH: usize = 3;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// Trained and evaluated.
    Finished,
    /// A process on this machine, or on this file system with locks, works in it.
    Running,
    /// It can be resumed from a checkpoint.
    Stopped,
    /// It has no checkpoint yet.
    Begun,
    /// Its configuration or metrics cannot be read.
    Damaged,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Finished => "finished",
            State::Running => "running",
            State::Stopped => "stopped",
            State::Begun => "begun",
            State::Damaged => "damaged",
        }
    }
}

/// The accuracy under one attack, in percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Best {
    pub(super) attack: String,
    pub(super) percent: f64,
}

/// A run folder.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FoundRun {
    pub(super) folder: PathBuf,
    pub(super) state: State,
    pub(super) epochs: u64,
    pub(super) of_epochs: Option<u64>,
    /// Without an attack, and under the attack that left fewest right.
    pub(super) natural: Option<Best>,
    pub(super) robust: Option<Best>,
    /// The images of these numbers: of the final evaluation, else of the best selection so far.
    pub(super) split: Option<String>,
    pub(super) bytes: u64,
}

/// All runs at `folder` and below, by their paths.
pub(super) fn find(folder: &Path) -> Vec<FoundRun> {
    let mut folders = vec![];
    walk(folder, DEPTH, &mut folders);
    folders.sort();
    folders.iter().map(|folder| describe(folder)).collect()
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if folder.join("run.toml").is_file() {
        return found.push(folder.to_path_buf());
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for inner in entries.filter(|path| path.is_dir() && !path.is_symlink() && depth > 0) {
        walk(&inner, depth - 1, found);
    }
}

fn describe(path: &Path) -> FoundRun {
    let folder = RunFolder::at(path);
    let config = folder.config();
    let recorded = if path.join("metrics.jsonl").exists() { RecordedRun::read(path).map(Some) } else { Ok(None) };
    let state = match (&config, &recorded) {
        (Err(_), _) | (_, Err(_)) => State::Damaged,
        _ if is_locked(path) => State::Running,
        (Ok(config), _) if folder.is_finished(config) => State::Finished,
        _ if folder.checkpoints().is_empty() => State::Begun,
        _ => State::Stopped,
    };
    let recorded = recorded.ok().flatten().unwrap_or_default();
    let (attacks, split) = numbers(&recorded);
    FoundRun {
        folder: path.to_path_buf(),
        state,
        epochs: recorded.epochs.last().map_or(0, |epoch| epoch.epoch + 1),
        of_epochs: config.ok().map(|config| config.epochs),
        natural: attacks.iter().find(|attack| attack.name == "natural").and_then(best),
        robust: attacks
            .iter()
            .filter(|attack| attack.name != "natural")
            .min_by_key(|attack| attack.correct)
            .and_then(best),
        split,
        bytes: size(path),
    }
}

fn numbers(run: &RecordedRun) -> (Vec<Accuracy>, Option<String>) {
    if let Some(evaluation) = &run.evaluation {
        return (evaluation.attacks.clone(), evaluation.split.clone().or(Some("test".into())));
    }
    // A selection keeps the weights with the most right answers under its last attack, of equals the earliest.
    let right = |attacks: &[Accuracy]| attacks.last().map_or(0, |attack| attack.correct);
    let best = run.evaluated.iter().rev().max_by_key(|evaluated| right(&evaluated.attacks));
    best.map_or((vec![], None), |best| (best.attacks.clone(), Some(best.split.clone())))
}

fn best(attack: &Accuracy) -> Option<Best> {
    let (percent, _) = percentage(attack.correct, attack.of)?;
    Some(Best { attack: attack.name.clone(), percent })
}

/// Whether a process holds the lock of the run folder.
fn is_locked(path: &Path) -> bool {
    let Ok(lock) = open_regular(&path.join("run.lock")) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

fn size(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_selection_counts_until_there_is_an_evaluation() {
        let mut run = RecordedRun::default();
        let line = |epoch: u64, right: u64| {
            format!(
                "{{\"event\":\"evaluated\",\"epoch\":{epoch},\"split\":\"held_out\",\"attacks\":[{{\"name\":\"natural\",\
                 \"correct\":9,\"of\":10}},{{\"name\":\"pgd10\",\"correct\":{right},\"of\":10}}]}}\n"
            )
        };
        let text = [line(0, 3), line(1, 6), line(2, 5)].concat();
        run.replay(text.as_bytes(), Path::new("metrics.jsonl")).unwrap();
        let (attacks, split) = numbers(&run);
        assert_eq!((attacks[1].correct, split.as_deref()), (6, Some("held_out")));
        assert_eq!(best(&attacks[1]), Some(Best { attack: "pgd10".into(), percent: 60.0 }));
    }
}
