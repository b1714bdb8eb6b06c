//! Going back: after a collapse the run takes up the last checkpoint of an epoch again, with a lower learning rate.
//!
//! Only checkpoints that `checkpoint.every` asks for count: a run that was stopped and resumed has others as well, and must go
//! back to the same place as one that was not.

use std::fs;

use anyhow::{Context, Result};

use super::active::Run;
use crate::config::OnCollapse;
use crate::run::state::{self, RunState};

impl Run<'_> {
    /// The step of the checkpoint that a collapse in `epoch`, from 0, leads back to; nothing where the run does not go back.
    pub(super) fn checkpoint_to_go_back_to(&self, epoch: u64) -> Option<u64> {
        let guard = self.context.config.guard;
        let may = guard.on_collapse == OnCollapse::Rollback && self.state.guarding.rollbacks < guard.max_rollbacks;
        self.scheduled_checkpoint(epoch).filter(|_| may)
    }

    /// The step of the last checkpoint that `checkpoint.every` asks for before `epoch`, from 0, is trained.
    fn scheduled_checkpoint(&self, epoch: u64) -> Option<u64> {
        let saved = Some(epoch - epoch % self.context.config.checkpoint.every).filter(|epoch| *epoch > 0);
        saved.map(|epoch| epoch * self.context.steps_per_epoch())
    }

    /// The step of a checkpoint that stays although newer ones are there.
    pub(super) fn spared_checkpoint(&self) -> Option<u64> {
        let rolls_back = self.context.config.guard.on_collapse == OnCollapse::Rollback;
        self.scheduled_checkpoint(self.state.progress.epoch).filter(|_| rolls_back)
    }

    /// The factor of the learning rate after so many rollbacks.
    pub(super) fn rate_factor_after(&self, rollbacks: u64) -> f64 {
        self.context.config.guard.rate_factor.powi(rollbacks as i32)
    }

    /// Goes back if a guard asks for it, and saves the state there: a run that is killed goes on from it. What was recorded
    /// stays.
    pub(super) fn go_back(&mut self) -> Result<()> {
        let Some(step) = self.back_to.take() else { return Ok(()) };
        // All ranks have started it; a request to stop is asked for again.
        self.last_requests()?;
        // The checkpoint that it goes back to may be on its way to the disk.
        self.finish_save()?;
        let went = state::go_back_to(self.context, &mut self.step, &self.averages, step);
        let restored = went.with_context(|| format!("going back to the checkpoint after step {step}"))?;
        let RunState { best, metrics_bytes, seconds, .. } = self.state;
        let rollbacks = self.state.guarding.rollbacks + 1;
        self.state = RunState { best, metrics_bytes, seconds, epoch_began: self.clock.seconds(), ..restored };
        self.state.guarding.rollbacks = rollbacks;
        self.step.work.watch.release();
        if self.context.ranks().is_leader() {
            // They are of the steps that the run goes back over, and newer than all that are to come.
            for (_, path) in self.context.folder.checkpoints().into_iter().filter(|(saved, _)| *saved > step) {
                let _ = fs::remove_file(path);
            }
        }
        self.save_checkpoint()
    }
}
