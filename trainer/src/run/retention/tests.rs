//! Nothing is removed for a checkpoint that is not known to be whole, and the best ones stay.

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use tch::Tensor;

use super::*;
use crate::model::ModelSpec;
use crate::weights::checkpoint::{Header, Tensors};

fn folder_with(steps: &[u64]) -> (tempfile::TempDir, RunFolder) {
    let place = tempfile::tempdir().unwrap();
    let folder = RunFolder::at(place.path());
    fs::create_dir(place.path().join("checkpoints")).unwrap();
    steps.iter().for_each(|step| fs::write(folder.checkpoint(*step), "").unwrap());
    (place, folder)
}

/// A whole checkpoint after `step` with so many correct answers.
fn save(folder: &RunFolder, step: u64, selection: Option<u64>) {
    let form = ModelSpec::new("resnet8".parse().unwrap(), [1, 28, 28], 10);
    let header = Header { selection, ..Header::new(form, "hash".into(), 8) };
    let tensors = Tensors::from([("student/step".to_string(), Tensor::from(step as i64))]);
    checkpoint::write(&folder.checkpoint(step), header, &tensors).unwrap();
}

fn steps(folder: &RunFolder) -> Vec<u64> {
    folder.list_checkpoints().unwrap().into_iter().map(|(step, _)| step).rev().collect()
}

fn retention(keep_last: usize, keep_best: u64, resumed: Option<u64>) -> Retention {
    Retention::new(&CheckpointConfig { keep_last, keep_best, ..CheckpointConfig::default() }, 1, resumed)
}

proptest! {
    /// Whatever is known to be whole: the newest `keep` of those stay, and so does everything newer than the oldest of them.
    #[test]
    fn only_what_is_older_than_enough_whole_ones_is_removed(
        present in btree_set(0u64..40, 1..8), known in btree_set(0usize..8, 1..8), keep in 1usize..4,
        keep_every in option::of(1u64..8),
    ) {
        let present: Vec<u64> = present.into_iter().collect();
        let (_place, folder) = folder_with(&present);
        let before: Vec<u64> = known.iter().filter_map(|index| present.get(*index).copied()).collect();
        let mut retention = Retention { keep_every, valid: before.clone(), ..retention(keep, 0, None) };
        retention.prune(folder.checkpoints(), None);
        let oldest_kept = before.iter().rev().nth(keep - 1).copied().unwrap_or(0);
        let stays = |step: &u64| *step >= oldest_kept || keep_every.is_some_and(|every| step.is_multiple_of(every));
        let expected: Vec<u64> = present.iter().copied().filter(stays).collect();
        prop_assert_eq!(steps(&folder), expected);
        prop_assert_eq!(retention.valid.len(), before.len().min(keep));
    }

    /// In whichever sessions they were saved: the newest ones stay, and of all those that were measured the best.
    #[test]
    fn the_best_stay_beside_the_newest(
        measured in vec(option::of(0u64..6), 1..10), keep_last in 1usize..3, keep_best in 1u64..4, sessions in 1usize..4,
    ) {
        let (_place, folder) = folder_with(&[]);
        let mut kept = retention(keep_last, keep_best, None);
        for (index, selection) in measured.iter().enumerate() {
            let step = index as u64 + 1;
            save(&folder, step, *selection);
            kept.written(&folder, step, *selection, None);
            if (index + 1).is_multiple_of(sessions) {
                kept = retention(keep_last, keep_best, Some(step));
            }
        }
        let mut best: Vec<(Reverse<u64>, usize)> =
            measured.iter().enumerate().filter_map(|(index, correct)| Some((Reverse((*correct)?), index))).collect();
        best.sort();
        best.truncate(keep_best as usize);
        let newest = measured.len().saturating_sub(keep_last);
        let stays = |index: &usize| *index >= newest || best.iter().any(|(_, best)| best == index);
        let expected: Vec<u64> = (0..measured.len()).filter(stays).map(|index| index as u64 + 1).collect();
        prop_assert_eq!(steps(&folder), expected);
    }
}

/// A file that is damaged tells nothing of how good it is, and takes no place among the best.
#[test]
fn damaged_ones_are_not_among_the_best() {
    let (_place, folder) = folder_with(&[]);
    (1..=3).for_each(|step| save(&folder, step, Some(step)));
    fs::write(folder.checkpoint(3), "torn").unwrap();
    save(&folder, 4, None);
    let mut kept = retention(1, 1, None);
    kept.written(&folder, 4, None, None);
    assert_eq!(steps(&folder), [2, 4]);
}

/// The one that a guard may lead back to stays, and once the run has gone back, only what is saved from there on counts.
#[test]
fn the_one_to_go_back_to_stays() {
    let (_place, folder) = folder_with(&[]);
    let mut kept = retention(1, 0, None);
    for step in 1..=4 {
        save(&folder, step, None);
        kept.written(&folder, step, None, Some(2));
    }
    assert_eq!(steps(&folder), [2, 4]);
    fs::remove_file(folder.checkpoint(4)).unwrap();
    kept.written(&folder, 2, None, Some(2));
    save(&folder, 3, None);
    kept.written(&folder, 3, None, None);
    assert_eq!(steps(&folder), [3]);
}
