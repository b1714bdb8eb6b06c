//! Which checkpoints stay. One is removed only for newer ones that this process has read or written itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use crate::config::CheckpointConfig;
use crate::run::folder::RunFolder;
use crate::weights::checkpoint;

/// Removes checkpoints that are not needed any more.
pub struct Retention {
    /// The number of newest ones that stay.
    keep_last: usize,
    /// Those at multiples of so many steps stay.
    keep_every: Option<u64>,
    /// The number of those with the best selection accuracies that stay.
    keep_best: usize,
    /// The steps of the newest checkpoints that are known to be whole, in their order.
    valid: Vec<u64>,
    /// The correct answers of checkpoints that are known to be whole, by step, once those of earlier sessions have been read.
    judged: Option<BTreeMap<u64, u64>>,
}

impl Retention {
    /// What `config` keeps of a run of so many steps an epoch, in which the checkpoint after step `resumed` was read.
    pub fn new(config: &CheckpointConfig, steps_per_epoch: u64, resumed: Option<u64>) -> Self {
        Self {
            keep_last: config.keep_last,
            keep_every: Some(config.keep_every * steps_per_epoch).filter(|steps| *steps > 0),
            keep_best: config.keep_best as usize,
            valid: resumed.into_iter().collect(),
            judged: None,
        }
    }

    /// The checkpoint after `step` of `folder` is whole, with so many correct answers if its weights were measured. Removes
    /// older ones, but for the one after `spared` steps. A run that went back knows of none after `step` any more.
    pub fn written(&mut self, folder: &RunFolder, step: u64, selection: Option<u64>, spared: Option<u64>) {
        self.valid.retain(|valid| *valid < step);
        self.valid.push(step);
        // What cannot be listed, read or removed costs space, not correctness.
        let listed = folder.checkpoints();
        if self.keep_best > 0 {
            let judged = self.judged.get_or_insert_with(|| judged(&listed, step));
            judged.retain(|other, _| *other <= step);
            judged.extend(selection.map(|correct| (step, correct)));
        }
        self.prune(listed, spared);
    }

    fn prune(&mut self, listed: Vec<(u64, PathBuf)>, spared: Option<u64>) {
        let Some(first) = self.valid.len().checked_sub(self.keep_last) else { return };
        let oldest = self.valid[first];
        let best = self.best(&listed);
        let stays = |step: u64| {
            step >= oldest
                || spared == Some(step)
                || best.contains(&step)
                || self.keep_every.is_some_and(|every| step.is_multiple_of(every))
        };
        for (_, path) in listed.into_iter().filter(|(step, _)| !stays(*step)) {
            let _ = fs::remove_file(path);
        }
        self.valid.drain(..first);
    }

    /// The best ones that are there: as everywhere, the earliest of equals wins.
    fn best(&self, listed: &[(u64, PathBuf)]) -> BTreeSet<u64> {
        let steps = listed.iter().map(|(step, _)| step);
        let mut judged: Vec<(Reverse<u64>, u64)> =
            steps.filter_map(|step| Some((Reverse(*self.judged.as_ref()?.get(step)?), *step))).collect();
        judged.sort_unstable();
        judged.into_iter().take(self.keep_best).map(|(_, step)| step).collect()
    }
}

/// How good the whole ones are among the checkpoints before `step`.
fn judged(listed: &[(u64, PathBuf)], step: u64) -> BTreeMap<u64, u64> {
    let correct = |path: &PathBuf| checkpoint::read(path).ok()?.0.selection;
    let before = listed.iter().filter(|(other, _)| *other < step);
    before.filter_map(|(step, path)| Some((*step, correct(path)?))).collect()
}

#[cfg(test)]
mod tests;
