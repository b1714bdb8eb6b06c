//! What a save writes, and in which order, on a thread of the leader's own.
//!
//! A checkpoint speaks of the best weights and of the metrics, so these are on the disk before it: first files of weights,
//! the oldest first, then metrics.jsonl, then the checkpoint. Only when it is whole are older ones removed.

use std::time::Instant;

use anyhow::{Error, Result, ensure};

use crate::run::context::RunContext;
use crate::run::folder::RunFolder;
use crate::run::metrics::Flush;
use crate::run::retention::Retention;
use crate::system::files::write_atomically;
use crate::system::transfer::Copies;
use crate::system::{Activity, Background, FaultKind};
use crate::weights::checkpoint::{self, Header, Tensors};

/// The leader's thread that writes the files of a run.
pub struct Writer {
    /// The thread.
    pub thread: Background<Save, Saved>,
    /// Weights that are in no file yet, and not on their way to one; the oldest first.
    pub waiting: Vec<WeightsFile>,
}

/// The contents of a file, as they were when it was made.
pub struct Contents {
    header: Header,
    tensors: Copies,
}

/// A file of weights alone.
pub struct WeightsFile {
    /// `best`, `final`, `ema` or `swa`.
    pub name: String,
    /// What it holds.
    pub contents: Contents,
}

/// A checkpoint.
pub struct Checkpoint {
    /// What it holds.
    pub contents: Contents,
    /// The lines of metrics.jsonl that it speaks of.
    pub metrics: Flush,
    /// The step of an older checkpoint that stays.
    pub spared: Option<u64>,
}

/// What is written together.
pub struct Save {
    /// Files of weights, the oldest first.
    pub weights: Vec<WeightsFile>,
    /// The checkpoint that speaks of them.
    pub checkpoint: Option<Checkpoint>,
}

/// What came of a [`Save`].
#[derive(Default)]
pub struct Saved {
    /// Weights that no file system has taken.
    pub left: Vec<WeightsFile>,
    /// A length of metrics.jsonl, and whether the disk has it.
    pub metrics: Option<(u64, bool)>,
    /// What is not saved, and why.
    pub problem: Option<(String, Error)>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Contents {
    /// Copies `tensors` as they are now.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub fn new(header: Header, tensors: &Tensors) -> Result<Self> {
        Ok(Self { header, tensors: Copies::of(tensors)? })
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        checkpoint::to_bytes(self.header.clone(), self.tensors.wait()?)
    }
}

impl Writer {
    /// A writer for the run of `context`, which was resumed from the checkpoint after step `resumed`.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn start(context: &RunContext, resumed: Option<u64>) -> Result<Self> {
        let retention = Retention::new(&context.config.checkpoint, context.steps_per_epoch(), resumed);
        Self::of(context.folder, retention, &context.place.activity)
    }

    /// A writer of the files of `folder`.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub fn of(folder: &RunFolder, retention: Retention, activity: &Activity) -> Result<Self> {
        let mut disk = Disk { folder: folder.clone(), retention, activity: activity.clone() };
        let thread = Background::start("checkpoints", move |save: Save| {
            let activity = disk.activity.clone();
            let began = Instant::now();
            let saved = activity.writing(save.step(), || disk.write(save));
            Saved { seconds: began.elapsed().as_secs_f64(), ..saved }
        })?;
        Ok(Self { thread, waiting: vec![] })
    }

    /// Keeps weights for the next save, in the place of older ones of that name.
    pub fn keep(&mut self, file: WeightsFile) {
        self.waiting.retain(|waiting| waiting.name != file.name);
        self.waiting.push(file);
    }

    /// Takes back weights that could not be written, but for those of which there are newer ones now.
    pub fn take_back(&mut self, left: Vec<WeightsFile>) {
        let newer = std::mem::take(&mut self.waiting);
        left.into_iter().chain(newer).for_each(|file| self.keep(file));
    }
}

impl Save {
    fn step(&self) -> u64 {
        let weights = self.weights.last().map(|file| &file.contents);
        let contents = self.checkpoint.as_ref().map(|checkpoint| &checkpoint.contents).or(weights);
        contents.map_or(0, |contents| contents.header.progress.step)
    }
}

/// What the thread knows.
struct Disk {
    folder: RunFolder,
    retention: Retention,
    activity: Activity,
}

impl Disk {
    fn write(&mut self, save: Save) -> Saved {
        let step = save.step();
        let Save { weights, checkpoint } = save;
        let mut saved = Saved::default();
        let mut weights = weights.into_iter();
        while let Some(file) = weights.next() {
            if let Err(problem) = self.write_weights(&file) {
                let what = format!("the {} weights are not saved", file.name);
                let waits = format!("no checkpoint is saved after step {step}, for {what}");
                saved.problem = Some((if checkpoint.is_some() { waits } else { what }, problem));
                saved.left = std::iter::once(file).chain(weights).collect();
                return saved;
            }
        }
        if let Some(checkpoint) = checkpoint
            && let Err(problem) = self.write_checkpoint(&checkpoint, &mut saved)
        {
            saved.problem = Some((format!("no checkpoint is saved after step {step}"), problem));
        }
        saved
    }

    fn write_weights(&self, file: &WeightsFile) -> Result<()> {
        write_atomically(&self.folder.weights(&file.name), &file.contents.to_bytes()?)
    }

    fn write_checkpoint(&mut self, checkpoint: &Checkpoint, saved: &mut Saved) -> Result<()> {
        let Checkpoint { contents, metrics, spared } = checkpoint;
        let Header { progress, selection, .. } = contents.header;
        self.activity.begin_checkpoint(progress.step);
        let flushed = metrics.wait();
        saved.metrics = Some((metrics.bytes, flushed.is_ok()));
        flushed?;
        ensure!(!self.activity.takes(FaultKind::IoError), "injected input/output error");
        write_atomically(&self.folder.checkpoint(progress.step), &contents.to_bytes()?)?;
        self.retention.written(&self.folder, progress.step, selection, *spared);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
