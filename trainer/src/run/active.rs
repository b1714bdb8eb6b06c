//! A run under way on this rank: everything that its loop holds.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Error, Result, ensure};
use comm::HostSum;

use super::averages::Averages;
use super::checkpoints::prune;
use super::clock::Clock;
use super::context::RunContext;
use super::desync::ensure_equal_on_all_ranks;
use super::events::Event;
use super::metrics::{JsonLines, Sink};
use super::state::{self, RunState};
use super::trace::Tracer;
use crate::model::Model;
use crate::step::Step;
use crate::system::files::write_atomically;
use crate::system::{FaultKind, Stage};

/// How a run ends for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All epochs and the final evaluation are done.
    Finished,
    /// It was asked to stop; the same command resumes it.
    Stopped,
}

/// A run under way on this rank.
pub struct Run<'a> {
    pub context: &'a RunContext<'a>,
    pub console: &'a mut dyn Sink,
    /// The leader's metrics.jsonl.
    pub journal: Option<JsonLines>,
    pub step: Step,
    pub averages: Averages,
    pub state: RunState,
    pub clock: Clock,
    pub tracer: Option<Tracer>,
    /// When this session last saved a checkpoint.
    pub saved: Instant,
    /// The steps of the checkpoints that this session has read or written.
    pub valid_checkpoints: Vec<u64>,
    /// The leader's weights that could not be written yet.
    pub unsaved_weights: Vec<UnsavedWeights>,
    /// What the ranks were asked for at the last step, on its way.
    pub asked: Option<HostSum>,
    /// Whether a step takes so long that requests are read within it and at its end. All ranks know the same.
    pub slow: bool,
    /// The step of the checkpoint that a guard leads back to.
    pub back_to: Option<u64>,
}

/// Weights whose file could not be written yet.
pub struct UnsavedWeights {
    file: PathBuf,
    bytes: Vec<u8>,
}

impl Run<'_> {
    /// Writes the whole state, after making sure that all ranks agree on it. A file system that refuses, say because it is
    /// full, does not end the run: the checkpoint before stays, and the next save tries again.
    pub fn save_checkpoint(&mut self) -> Result<()> {
        self.context.place.activity.begin_next(Stage::Save);
        let ranks = self.context.ranks();
        ensure_equal_on_all_ranks(&self.step, &self.averages, ranks, self.state.progress.step)?;
        if ranks.is_leader()
            && let Err(problem) = self.write_checkpoint()
        {
            let step = self.state.progress.step;
            self.warn_unsaved(&format!("no checkpoint is saved after step {step}"), &problem)?;
        }
        self.saved = Instant::now();
        // No rank runs ahead of a checkpoint that is not on the disk yet.
        ranks.barrier()
    }

    fn write_checkpoint(&mut self) -> Result<()> {
        // A checkpoint speaks of the best weights and of the metrics, so that they are on the disk before it.
        self.write_unsaved_weights()?;
        if let Some(journal) = &mut self.journal {
            self.state.metrics_bytes = journal.sync()?;
        }
        self.state.seconds = self.clock.seconds();
        let fails = self.context.place.activity.takes(FaultKind::IoError);
        ensure!(!fails, "injected input/output error");
        state::save(self.context, &self.state, &self.step, &self.averages)?;
        self.valid_checkpoints.push(self.state.progress.step);
        let (config, images) = (&self.context.config.checkpoint, self.context.prepared.train.len());
        let steps_per_epoch = images.div_ceil(self.context.global_batch()) as u64;
        let keep_every = Some(config.keep_every * steps_per_epoch).filter(|steps| *steps > 0);
        let spared = self.spared_checkpoint();
        prune(self.context.folder, &mut self.valid_checkpoints, config.keep_last, keep_every, spared);
        Ok(())
    }

    /// Writes the student's weights alone under `name`, or keeps them for the next try.
    pub fn save_student(&mut self, name: &str) -> Result<()> {
        if !self.context.ranks().is_leader() {
            return Ok(());
        }
        let bytes = state::weights_file(self.context, &self.state, &self.step.work.networks.student)?;
        self.save_file(name, bytes)
    }

    /// Writes the weights of `model` alone under `name`, or keeps them for the next try.
    pub fn save_weights(&mut self, name: &str, model: &Model) -> Result<()> {
        if !self.context.ranks().is_leader() {
            return Ok(());
        }
        self.save_file(name, state::weights_file(self.context, &self.state, model)?)
    }

    fn save_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let file = self.context.folder.weights(name);
        self.unsaved_weights.retain(|unsaved| unsaved.file != file);
        self.unsaved_weights.push(UnsavedWeights { file, bytes });
        match self.write_unsaved_weights() {
            Err(problem) => self.warn_unsaved(&format!("the {name} weights are not saved"), &problem),
            Ok(()) => Ok(()),
        }
    }

    /// Writes the weights that no file system has taken yet.
    ///
    /// # Errors
    /// It still takes none.
    pub fn write_unsaved_weights(&mut self) -> Result<()> {
        while let Some(UnsavedWeights { file, bytes }) = self.unsaved_weights.first() {
            write_atomically(file, bytes)?;
            self.unsaved_weights.remove(0);
        }
        Ok(())
    }

    fn warn_unsaved(&mut self, what: &str, problem: &Error) -> Result<()> {
        let message = format!(
            "{what}: {problem:#}. The run goes on, the files saved before are whole, and the next save tries again: make \
             room, or mend the file system"
        );
        self.record(&Event::Warned { message })
    }

    pub fn record(&mut self, event: &Event) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.record(event)?;
            if let Some(problem) = journal.take_problem() {
                let message =
                    format!("{problem:#}. The run goes on, and its events wait in memory until they can be written");
                self.console.record(&Event::Warned { message })?;
            }
        }
        self.console.record(event)
    }
}
