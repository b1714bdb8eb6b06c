//! Batches of an epoch, prepared ahead by one thread.

use std::any::Any;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Error, Result, anyhow};
use crossbeam::channel::{Receiver, bounded};

use crate::{Augment, Draws, Purpose, Shard, Source};

/// How a source becomes this rank's training batches.
#[derive(Clone)]
pub struct Pipeline {
    /// Where the samples come from; a sample's number in it is its identity for all randomness.
    pub source: Arc<dyn Source>,
    /// How images are varied, if they are.
    pub augment: Option<Augment>,
    /// Which part of every global batch is ours.
    pub shard: Shard,
    /// The samples of a batch over all ranks, at least 1; the last batch of an epoch has what is left.
    pub global_batch: usize,
    /// The seed of the run.
    pub seed: u64,
    /// How many batches are prepared in advance.
    pub ahead: usize,
}

/// This rank's part of one global batch, in host memory. It can be empty, so that all ranks take equally many steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostBatch {
    /// The pixels, sample by sample, each channels x height x width bytes.
    pub images: Vec<u8>,
    /// The class of each sample.
    pub labels: Vec<i64>,
    /// The number of each sample in the pipeline's source.
    pub samples: Vec<u64>,
    /// The samples of the whole batch over all ranks: what a sum of losses is divided by.
    pub global_count: usize,
}

impl Pipeline {
    /// How many batches an epoch has, the same on every rank.
    pub fn batches_per_epoch(&self) -> usize {
        self.source.len().div_ceil(self.global_batch)
    }

    /// The batches of `epoch` in its random order, from number `from_batch` on.
    pub fn epoch(&self, epoch: u64, from_batch: usize) -> Loader {
        let (sender, receiver) = bounded(self.ahead);
        let pipeline = self.clone();
        let work = move || {
            let order = Draws::new(pipeline.seed, Purpose::Shuffle, epoch).permutation(pipeline.source.len());
            let draws = Draws::new(pipeline.seed, Purpose::Augment, epoch);
            for slots in order.chunks(pipeline.global_batch).skip(from_batch) {
                let batch = pipeline.batch(slots, &draws);
                let failed = batch.is_err();
                // A closed channel means that the loader was dropped.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        match thread::Builder::new().name("loader".to_owned()).spawn(work).context("starting the loader thread") {
            Ok(thread) => Loader { receiver: Some(receiver), thread: Some(thread), failure: None },
            Err(failure) => Loader { receiver: None, thread: None, failure: Some(failure) },
        }
    }

    /// This rank's part of the global batch of the samples `slots`.
    fn batch(&self, slots: &[usize], draws: &Draws) -> Result<HostBatch> {
        let shape = self.source.shape();
        let size: usize = shape.iter().product();
        let own: Vec<usize> = self.shard.slots(slots.len()).map(|slot| slots[slot]).collect();
        let mut images = vec![0; own.len() * size];
        let mut scratch = Vec::new();
        for (&sample, image) in own.iter().zip(images.chunks_exact_mut(size)) {
            self.source.read(sample, image).with_context(|| format!("reading sample {sample}"))?;
            if let Some(augment) = &self.augment {
                augment.apply(shape, draws, sample as u64, image, &mut scratch);
            }
        }
        let labels = own.iter().map(|&sample| self.source.label(sample)).collect();
        let samples = own.into_iter().map(|sample| sample as u64).collect();
        Ok(HostBatch { images, labels, samples, global_count: slots.len() })
    }
}

/// The batches of one epoch. A batch that cannot be made is an error and the last item; dropping it ends its thread.
pub struct Loader {
    receiver: Option<Receiver<Result<HostBatch>>>,
    thread: Option<JoinHandle<()>>,
    failure: Option<Error>,
}

impl Iterator for Loader {
    type Item = Result<HostBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(batch) = self.receiver.as_ref().and_then(|receiver| receiver.recv().ok()) {
            return Some(batch);
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            self.failure = Some(anyhow!("the loader thread panicked: {}", panic_message(&*panic)));
        }
        self.failure.take().map(Err)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channel wakes a thread that waits to send.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // Nobody is left to tell of a panic.
            let _ = thread.join();
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests;
