//! The saves of a run under way: the leader copies its state, and its writer writes the copy while the steps go on.
//!
//! At most one save is under way; the next one waits for it. No rank waits for the disk, so a crash loses at most the steps
//! since the last checkpoint that is whole, and metrics.jsonl is cut back to it when the run resumes. A stop and the end of
//! the run wait for what is under way.

use std::time::Instant;

use anyhow::{Context, Error, Result};

use super::active::Run;
use super::desync::ensure_equal_on_all_ranks;
use super::events::Event;
use super::state;
use super::writer::{Checkpoint, Save, Saved};
use crate::model::Model;
use crate::system::Stage;

impl Run<'_> {
    /// Begins to save the whole state, after making sure that all ranks agree on it. A file system that refuses, say because
    /// it is full, does not end the run: the checkpoint before stays, and the next save tries again.
    pub fn save_checkpoint(&mut self) -> Result<()> {
        let (ranks, activity) = (self.context.ranks(), &self.context.place.activity);
        if self.writer.is_some() {
            activity.begin_save()
        } else {
            activity.begin_next(Stage::Save)
        }
        ensure_equal_on_all_ranks(&self.step, &self.averages, ranks, self.state.progress.step)?;
        self.wait_for_save()?;
        if self.writer.is_some() {
            match self.checkpoint() {
                Ok(checkpoint) => self.begin_save(Some(checkpoint))?,
                Err(problem) => {
                    let step = self.state.progress.step;
                    self.warn_unsaved(&format!("no checkpoint is saved after step {step}"), &problem)?;
                    self.begin_save(None)?;
                }
            }
        }
        self.saved = Instant::now();
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<Checkpoint> {
        let metrics = self.journal.as_mut().context("no metrics.jsonl")?.begin_flush()?;
        self.state.metrics_bytes = metrics.bytes;
        self.state.seconds = self.clock.seconds();
        let contents = state::contents(self.context, &self.state, &self.step, &self.averages)?;
        Ok(Checkpoint { contents, metrics, spared: self.spared_checkpoint() })
    }

    /// Keeps the student's weights for a file of that name, which the next save writes.
    pub fn keep_student(&mut self, name: &str) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.keep(state::weights_file(self.context, &self.state, name, &self.step.work.networks.student)?);
        Ok(())
    }

    /// Keeps the weights of `model` for a file of that name, which the next save writes.
    pub fn keep_weights(&mut self, name: &str, model: &Model) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.keep(state::weights_file(self.context, &self.state, name, model)?);
        Ok(())
    }

    /// Begins to write the weights that are kept, without a checkpoint.
    pub fn save_kept_weights(&mut self) -> Result<()> {
        if self.writer.as_ref().is_some_and(|writer| !writer.waiting.is_empty()) {
            self.context.place.activity.begin_save();
            self.wait_for_save()?;
            self.begin_save(None)?;
        }
        Ok(())
    }

    /// Writes the weights that are kept. What fails once is tried again.
    ///
    /// # Errors
    /// No file system takes them.
    pub fn write_kept_weights(&mut self) -> Result<()> {
        self.save_kept_weights()?;
        self.wait_for_save()?;
        self.save_kept_weights()?;
        let Some(saved) = self.writer.as_mut().map(|writer| writer.thread.wait()).transpose()?.flatten() else {
            return Ok(());
        };
        self.take(saved).map_or(Ok(()), |(_, problem)| Err(problem))
    }

    fn begin_save(&mut self, checkpoint: Option<Checkpoint>) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let weights = std::mem::take(&mut writer.waiting);
        if weights.is_empty() && checkpoint.is_none() {
            return Ok(());
        }
        writer.thread.begin(Save { weights, checkpoint })
    }

    /// Tells what came of a save that has ended meanwhile.
    pub fn hear_of_save(&mut self) -> Result<()> {
        let saved = self.writer.as_mut().map(|writer| writer.thread.poll()).transpose()?.flatten();
        self.tell(saved)
    }

    /// Waits for the save under way, and tells what came of it.
    pub fn wait_for_save(&mut self) -> Result<()> {
        let saved = self.writer.as_mut().map(|writer| writer.thread.wait()).transpose()?.flatten();
        self.tell(saved)
    }

    /// Ends the save under way, as a stage of its own.
    pub fn finish_save(&mut self) -> Result<()> {
        if self.writer.as_ref().is_some_and(|writer| writer.thread.is_busy()) {
            self.context.place.activity.begin_save();
        }
        self.wait_for_save()
    }

    fn tell(&mut self, saved: Option<Saved>) -> Result<()> {
        match saved.and_then(|saved| self.take(saved)) {
            Some((what, problem)) => self.warn_unsaved(&what, &problem),
            None => Ok(()),
        }
    }

    /// Takes up what came of a save; returns what went wrong.
    fn take(&mut self, saved: Saved) -> Option<(String, Error)> {
        let Saved { left, metrics, problem, .. } = saved;
        if let (Some(journal), Some((bytes, flushed))) = (&mut self.journal, metrics) {
            journal.end_flush(bytes, flushed);
        }
        if let Some(writer) = &mut self.writer {
            writer.take_back(left);
        }
        problem
    }

    fn warn_unsaved(&mut self, what: &str, problem: &Error) -> Result<()> {
        let message = format!(
            "{what}: {problem:#}. The run goes on, the files saved before are whole, and the next save tries again: make \
             room, or mend the file system"
        );
        self.record(&Event::Warned { message })
    }
}
