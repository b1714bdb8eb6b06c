//! A run resumes from what is whole, and nothing is given up because it cannot be read.

use proptest::collection::btree_set;
use proptest::prelude::*;
use tch::Tensor;

use super::*;
use crate::model::ModelSpec;

/// A run folder with whole checkpoints after these steps, each saved when metrics.jsonl had ten bytes a step.
fn folder_with(steps: &[u64]) -> (tempfile::TempDir, RunFolder) {
    let place = tempfile::tempdir().unwrap();
    let folder = RunFolder::at(place.path());
    fs::create_dir(place.path().join("checkpoints")).unwrap();
    let form = ModelSpec::new("resnet8".parse().unwrap(), [1, 28, 28], 10);
    for step in steps {
        let header = Header { metrics_bytes: 10 * step, ..Header::new(form, "hash".into(), 8) };
        let tensors = Tensors::from([("student/step".to_string(), Tensor::from(*step as i64))]);
        checkpoint::write(&folder.checkpoint(*step), header, &tensors).unwrap();
    }
    (place, folder)
}

fn steps(folder: &RunFolder) -> Vec<u64> {
    folder.list_checkpoints().unwrap().into_iter().map(|(step, _)| step).rev().collect()
}

fn refusal(folder: &RunFolder, metrics_bytes: u64) -> String {
    let error = newest(folder, metrics_bytes).err().expect("a refusal");
    assert!(error.downcast_ref::<UserError>().is_some(), "{error:?}");
    error.to_string()
}

#[test]
fn a_new_folder_has_none() {
    let (_place, folder) = folder_with(&[]);
    assert!(newest(&folder, 0).unwrap().is_none());
    assert!(newest(&RunFolder::at(&folder.path.join("missing")), 0).unwrap().is_none());
}

#[test]
fn a_damaged_one_is_passed_over_with_its_name() {
    let (_place, folder) = folder_with(&[1, 2, 3]);
    fs::write(folder.checkpoint(3), "torn").unwrap();
    let found = newest(&folder, 1000).unwrap().unwrap();
    assert_eq!(found.header.metrics_bytes, 20);
    assert!(found.refused.len() == 1 && found.refused[0].contains("step-00000003"), "{:?}", found.refused);
}

/// A folder in the place of a checkpoint can be read by nobody, not even by root.
#[test]
fn one_that_cannot_be_read_ends_the_start() {
    let (_place, folder) = folder_with(&[1, 2]);
    fs::create_dir(folder.checkpoint(3)).unwrap();
    let message = refusal(&folder, 1000);
    for part in ["step-00000003", "a folder", "nothing in", "move this one away"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(steps(&folder), [1, 2, 3]);
}

#[test]
fn without_a_whole_one_the_way_out_is_named() {
    let (_place, folder) = folder_with(&[]);
    fs::write(folder.checkpoint(1), "torn").unwrap();
    fs::write(folder.checkpoint(2), "").unwrap();
    let message = refusal(&folder, 1000);
    assert!(message.contains("to begin the run anew, delete ") && message.contains("--run"), "{message}");
    assert!(message.contains("step-00000001") && message.contains("step-00000002"), "{message}");
}

#[test]
fn a_short_metrics_file_leads_to_an_older_one_or_is_refused() {
    let (_place, folder) = folder_with(&[1, 2]);
    let found = newest(&folder, 15).unwrap().unwrap();
    assert_eq!(found.header.metrics_bytes, 10);
    assert!(found.refused[0].contains("20 bytes") && found.refused[0].contains("only 15"), "{:?}", found.refused);
    let message = refusal(&folder, 5);
    assert!(message.contains("put the whole metrics.jsonl back"), "{message}");
}

#[test]
fn finished_weights_are_not_trained_over() {
    let (_place, folder) = folder_with(&[]);
    fs::write(folder.weights("final"), "weights").unwrap();
    assert!(refusal(&folder, 1000).contains("iad-launch eval"));
}

proptest! {
    /// Whatever is known to be whole: the newest `keep` of those stay, and so does everything newer than the oldest of them.
    #[test]
    fn only_what_is_older_than_enough_whole_ones_is_removed(
        present in btree_set(0u64..40, 1..8), known in btree_set(0usize..8, 1..8), keep in 1usize..4,
        keep_every in proptest::option::of(1u64..8),
    ) {
        let present: Vec<u64> = present.into_iter().collect();
        let (_place, folder) = folder_with(&[]);
        present.iter().for_each(|step| fs::write(folder.checkpoint(*step), "").unwrap());
        let mut valid: Vec<u64> = known.iter().filter_map(|index| present.get(*index).copied()).collect();
        let before = valid.clone();
        prune(&folder, &mut valid, keep, keep_every, None);
        let oldest_kept = before.iter().rev().nth(keep - 1).copied().unwrap_or(0);
        let expected: Vec<u64> = present.iter().copied().filter(|step| *step >= oldest_kept || keep_every.is_some_and(|every| step % every == 0)).collect();
        prop_assert_eq!(steps(&folder), expected);
        prop_assert_eq!(valid.len(), before.len().min(keep));
    }
}
