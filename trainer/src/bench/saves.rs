//! What a save costs the steps around it.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Bench, synchronize};
use crate::config::{CheckpointConfig, RunConfig};
use crate::run::averages::Averages;
use crate::run::desync::ensure_equal_on_all_ranks;
use crate::run::folder::RunFolder;
use crate::run::metrics::JsonLines;
use crate::run::retention::Retention;
use crate::run::state;
use crate::run::writer::{Checkpoint, Contents, Save, Writer};
use crate::system::Worker;
use crate::weights::checkpoint::{Header, Progress};

/// How long the same number of steps takes without a save and with one at its beginning, in turn.
#[derive(Debug, Clone, Serialize)]
pub struct SaveTimes {
    /// Steps from one save to the next.
    pub every: usize,
    /// Bytes of a checkpoint.
    pub bytes: u64,
    /// Seconds of the steps without a save, a round each.
    pub without: Vec<f64>,
    /// Seconds of the steps with a save before them, the save included.
    pub with: Vec<f64>,
    /// Seconds in which the ranks made sure that they agree.
    pub comparisons: Vec<f64>,
    /// Seconds in which the steps waited for the copy.
    pub copies: Vec<f64>,
    /// Seconds in which the leader's thread wrote the copy, while steps went on.
    pub writes: Vec<f64>,
    /// Seconds in which the steps waited for the write before.
    pub waits: Vec<f64>,
}

impl Bench {
    /// Repeats the step `every` times without a save and as often after one, `rounds` times. The leader writes the checkpoints
    /// to `folder`, which exists, as a run does.
    ///
    /// # Errors
    /// A failure of the transport, of the device or of the file system.
    pub fn saves(
        &mut self,
        config: &RunConfig,
        place: &Worker,
        folder: &RunFolder,
        (every, rounds): (usize, usize),
    ) -> Result<SaveTimes> {
        let ranks = place.ranks.as_ref();
        let averages = Averages::new(config, &self.step.work.parameters, &self.step.work.networks.student);
        let leads = || -> Result<(Writer, JsonLines)> {
            let retention = Retention::new(&CheckpointConfig { keep_last: 1, ..config.checkpoint.clone() }, 1, None);
            Ok((Writer::of(folder, retention, &place.activity)?, JsonLines::open(&folder.file("metrics.jsonl"), 0)?))
        };
        let mut leader = ranks.is_leader().then(leads).transpose()?;
        let (mut comparisons, mut copies, mut writes, mut waits) = (vec![], vec![], vec![], vec![]);
        let (mut without, mut with) = (vec![], vec![]);
        // Libraries set themselves up.
        self.steps(2)?;
        for round in 1..=rounds {
            without.push(self.steps(every)?);
            let began = Instant::now();
            ensure_equal_on_all_ranks(&self.step, &averages, ranks, round as u64)?;
            comparisons.push(began.elapsed().as_secs_f64());
            if let Some((writer, journal)) = &mut leader {
                let copying = Instant::now();
                let step = round as u64;
                let form = self.step.work.networks.student.form;
                let progress = Progress { step, ..Progress::default() };
                let header = Header { progress, ..Header::new(form, config.hash(), self.own.global_count) };
                let contents = Contents::new(header, &state::tensors(&self.step, &averages))?;
                let checkpoint = Checkpoint { contents, metrics: journal.begin_flush()?, spared: None };
                writer.thread.begin(Save { weights: vec![], checkpoint: Some(checkpoint) })?;
                copies.push(copying.elapsed().as_secs_f64());
            }
            self.steps(every)?;
            if let Some((writer, _)) = &mut leader {
                let waiting = Instant::now();
                let saved = writer.thread.wait()?.context("no save is under way")?;
                waits.push(waiting.elapsed().as_secs_f64());
                saved.problem.map_or(Ok(()), |(what, problem)| Err(problem.context(what)))?;
                writes.push(saved.seconds);
            }
            with.push(began.elapsed().as_secs_f64());
        }
        let last = folder.checkpoint(rounds as u64);
        let bytes = if ranks.is_leader() { std::fs::metadata(last)?.len() } else { 0 };
        ranks.barrier()?;
        Ok(SaveTimes { every, bytes, without, with, comparisons, copies, writes, waits })
    }

    /// Seconds of so many steps.
    fn steps(&mut self, count: usize) -> Result<f64> {
        synchronize(self.device);
        let began = Instant::now();
        for _ in 0..count {
            self.run()?;
        }
        synchronize(self.device);
        Ok(began.elapsed().as_secs_f64())
    }
}
