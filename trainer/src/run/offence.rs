//! A step that went wrong, kept in the run folder with its batch and state, so that it can be repeated.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use comm::Communicator;
use datasets::Shard;
use tch::{Tensor, no_grad};

use super::active::Run;
use super::pending::Taken;
use crate::config::AttackKind;
use crate::run::folder::RunFolder;
use crate::run::state::{self, RunState};
use crate::step::batch::Batch;
use crate::weights::checkpoint::{self, Progress};
use crate::weights::guarding::Offence;

/// The outliers of a run that are kept at most, the first ones: each is as large as a checkpoint.
const MOST: usize = 3;

impl RunFolder {
    /// The file of a step that went wrong.
    pub fn offending(&self, step: u64) -> PathBuf {
        self.path.join("offending").join(format!("step-{step:08}.safetensors"))
    }

    /// The steps that went wrong and are kept, newest first.
    pub fn all_offending(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path.join("offending")).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
        files.sort();
        files.reverse();
        files
    }
}

impl Run<'_> {
    /// A step that went wrong: its values are not finite, and the state is as it was before, but for an average that teaches and for
    /// earlier updates of free training on the same batch.
    pub(super) fn offence(&self, step: u64, found: String, taken: &Taken) -> Offence {
        Offence {
            step,
            found,
            not_finite: false,
            exact: !self.context.config.averages_teach() && self.context.config.attack.kind != AttackKind::Free,
            norm: None,
            limit: None,
            ranks: self.context.ranks().world_size(),
            rate: taken.rate,
        }
    }

    /// Keeps the step with the batch of all ranks, and says where. All ranks call it.
    ///
    /// # Errors
    /// A failure of the transport. A file that cannot be written is told.
    pub(super) fn keep_offending(&self, batch: &Batch, offence: Offence) -> Result<Option<String>> {
        let (context, ranks) = (self.context, self.context.ranks());
        let path = context.folder.offending(offence.step);
        let full =
            ranks.is_leader() && !offence.not_finite && !path.exists() && context.folder.all_offending().len() >= MOST;
        if ranks.gather(if full { "full" } else { "" })?[0] == "full" {
            return Ok(None);
        }
        let batch = whole(batch, ranks)?;
        if !ranks.is_leader() {
            return Ok(None);
        }
        let run = context.folder.path.display();
        Ok(Some(match self.write_offending(batch, offence) {
            Ok(path) => format!("The step is kept in {}, and `iad-launch replay {run}` repeats it", path.display()),
            Err(problem) => format!("The step cannot be kept: {problem:#}"),
        }))
    }

    fn write_offending(&self, batch: [(&'static str, Tensor); 3], offence: Offence) -> Result<PathBuf> {
        let path = self.context.folder.offending(offence.step);
        let folder = path.parent().context("a file in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let mut tensors = state::tensors(&self.step, &self.averages);
        tensors.extend(batch.map(|(name, tensor)| (name.to_string(), tensor)));
        let progress =
            Progress { epoch: self.state.progress.epoch, batch: self.state.totals.steps, step: offence.step - 1 };
        let state = RunState { progress, guarding: self.state.guarding.clone(), ..RunState::default() };
        let mut header = state.header(self.context);
        header.offence = Some(offence);
        checkpoint::write(&path, header, &tensors)?;
        Ok(path)
    }
}

/// The images, labels and sample numbers of the batch on all ranks, in its order.
fn whole(batch: &Batch, ranks: &dyn Communicator) -> Result<[(&'static str, Tensor); 3]> {
    let shard = Shard { rank: ranks.rank(), world_size: ranks.world_size() };
    let slots: Vec<i64> = shard.slots(batch.global_count).map(|slot| slot as i64).collect();
    let samples: Vec<i64> = batch.samples.iter().map(|sample| *sample as i64).collect();
    let device = batch.images.device();
    let [slots, samples] = [slots, samples].map(|numbers| Tensor::from_slice(&numbers).to_device(device));
    let join = |name: &'static str, part: &Tensor| -> Result<(&'static str, Tensor)> {
        let mut size = part.size();
        size[0] = batch.global_count as i64;
        let joined = no_grad(|| Tensor::zeros(&size, (part.kind(), device)).index_copy(0, &slots, part));
        // The other ranks add zeros.
        ranks.start_sum(&joined)?;
        ranks.finish_sums()?;
        Ok((name, joined))
    };
    Ok([join("batch/images", &batch.images)?, join("batch/labels", &batch.labels)?, join("batch/samples", &samples)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{on_ranks, pattern};

    #[test]
    fn the_batch_of_all_ranks_is_put_together_in_its_order() {
        let count = 5;
        let images = || {
            let images = pattern(count * 12, 3).view([count as i64, 3, 2, 2]);
            let _ = images.get(3).fill_(f64::NAN);
            images
        };
        for world_size in [1, 2, 3, 7] {
            let joined = on_ranks(world_size, false, |ranks| {
                let shard = Shard { rank: ranks.rank(), world_size };
                let rows: Vec<i64> = shard.slots(count).map(|slot| slot as i64).collect();
                let samples: Vec<u64> = rows.iter().map(|row| 100 + *row as u64).collect();
                let rows = Tensor::from_slice(&rows);
                let batch =
                    Batch { images: images().index_select(0, &rows), labels: &rows * 2, samples, global_count: count };
                whole(&batch, ranks.as_ref()).unwrap()
            });
            for ([(_, found), (_, labels), (name, samples)], _) in joined {
                let same = found.eq_tensor(&images()).logical_or(&found.isnan().logical_and(&images().isnan())).all();
                assert!(bool::try_from(same).unwrap(), "{world_size} ranks");
                assert_eq!(Vec::<i64>::try_from(labels).unwrap(), [0, 2, 4, 6, 8]);
                assert_eq!(
                    (name, Vec::<i64>::try_from(samples).unwrap()),
                    ("batch/samples", vec![100, 101, 102, 103, 104])
                );
            }
        }
    }
}
