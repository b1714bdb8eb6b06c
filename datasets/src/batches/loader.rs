//! Batches of an epoch, prepared ahead by threads of their own, in order.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Error, Result, anyhow};
use crossbeam::channel::{Receiver, bounded};

use crate::batches::augment::{Augment, Patch};
use crate::batches::extra::{Extra, Joined};
use crate::batches::shard::Shard;
use crate::ground::random::{Draws, Purpose};
use crate::ground::source::Source;

/// How a source becomes this rank's training batches.
#[derive(Clone)]
pub struct Pipeline {
    /// The source of the samples; a sample's number in it is its identity for all randomness.
    pub source: Arc<dyn Source>,
    /// A second source that takes a share of every batch. Its samples are numbered after those of `source`.
    pub extra: Option<Extra>,
    /// How images are varied, if they are.
    pub augment: Option<Augment>,
    /// Which part of every global batch is ours.
    pub shard: Shard,
    /// The samples of a batch over all ranks, at least 1; the last batch of an epoch has the rest, unless a second source
    /// fills it up.
    pub global_batch: usize,
    /// The seed of the run.
    pub seed: u64,
    /// How many batches are prepared in advance.
    pub ahead: usize,
    /// How many threads prepare them, at least 1.
    pub threads: usize,
    /// The bytes of images that may be held in memory so that many are read from a file at once; 0 to read batch by batch.
    pub window: usize,
}

/// This rank's part of one global batch, in host memory. It can be empty, so that all ranks take equally many steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostBatch {
    /// The pixels, sample by sample, each channels x height x width bytes.
    pub images: Vec<u8>,
    /// The class of each sample.
    pub labels: Vec<i64>,
    /// The number of each sample in the pipeline's source; those of a second source come after them.
    pub samples: Vec<u64>,
    /// The number of samples of the whole batch over all ranks: the divisor of a sum of losses.
    pub global_count: usize,
    /// The second labels of CutMix, if images are mixed.
    pub mixture: Option<Mixture>,
}

/// The other half of mixed images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mixture {
    /// The class of the image that a rectangle of each sample is from; its own class where it is whole.
    pub labels: Vec<i64>,
    /// The pixels of that rectangle, out of height x width; 0 where the sample is whole.
    pub pixels: Vec<i64>,
}

impl Pipeline {
    /// How many batches an epoch has, the same on every rank, and the same with a second source as without.
    pub fn batches_per_epoch(&self) -> usize {
        self.source.len().div_ceil(self.global_batch)
    }

    /// The batches of `epoch` in its random order, from number `from_batch` on.
    pub fn epoch(&self, epoch: u64, from_batch: usize) -> Loader {
        let mut order = Draws::new(self.seed, Purpose::Shuffle, epoch).permutation(self.source.len());
        let groups = self.groups(from_batch);
        let mut pipeline = self.clone();
        if let Some(extra) = &self.extra {
            order = extra.mix(&order, self.global_batch, self.seed, epoch);
            let (first, second) = (Arc::clone(&self.source), Arc::clone(&extra.source));
            pipeline.source = Arc::new(Joined { first, second });
        }
        let work = Arc::new((pipeline, order, groups.clone()));
        let threads = self.threads.max(1);
        let mut loader = Loader { workers: vec![], turns: Box::new(std::iter::empty()), failure: None };
        for number in 0..threads.min(groups.len()) {
            // A thread can put down a whole group and begin the next one.
            let (sender, receiver) = bounded(self.ahead.div_ceil(threads).max(self.largest_group()));
            let work = Arc::clone(&work);
            let run = move || {
                let (pipeline, order, groups) = &*work;
                let draws = Draws::new(pipeline.seed, Purpose::Augment, epoch);
                for group in groups.iter().skip(number).step_by(threads) {
                    let (batches, failure) = match pipeline.batches(group.clone(), order, &draws) {
                        Ok(batches) => (batches, None),
                        Err(error) => (vec![], Some(Err(error))),
                    };
                    for batch in batches.into_iter().map(Ok).chain(failure) {
                        let failed = batch.is_err();
                        // A closed channel means that the loader was dropped.
                        if sender.send(batch).is_err() || failed {
                            return;
                        }
                    }
                }
            };
            match thread::Builder::new().name(format!("loader {number}")).spawn(run).context("starting a loader thread")
            {
                Ok(thread) => loader.workers.push(Worker { receiver, thread }),
                Err(failure) => {
                    loader.failure = Some(failure);
                    return loader;
                }
            }
        }
        let turns = groups.into_iter().enumerate();
        loader.turns = Box::new(turns.flat_map(move |(number, group)| group.map(move |_| number % threads)));
        loader
    }

    /// The batches that are read together: one at first, so that training can begin, then four times as many each time. A thread
    /// holds two groups, one under way and one that waits.
    fn groups(&self, from_batch: usize) -> Vec<Range<usize>> {
        let (mut groups, mut from, all) = (vec![], from_batch, self.batches_per_epoch());
        while from < all {
            let round = groups.len() / self.threads.max(1);
            let size = self.largest_group().min(1 << (2 * round.min(20)));
            groups.push(from..(from + size).min(all));
            from += size;
        }
        groups
    }

    fn largest_group(&self) -> usize {
        let size: usize = self.source.shape().iter().product();
        let most = if self.extra.is_some() { self.global_batch } else { self.source.len() };
        // CutMix reads a second image for each.
        let images = if self.augment.as_ref().is_some_and(|augment| augment.cutmix > 0.0) { 2 } else { 1 };
        let batch = self.global_batch.div_ceil(self.shard.world_size).min(most) * size * images;
        (self.window / (2 * self.threads.max(1) * batch.max(1))).max(1)
    }

    /// This rank's parts of the batches `numbers`.
    fn batches(&self, numbers: Range<usize>, order: &[usize], draws: &Draws) -> Result<Vec<HostBatch>> {
        let shape = self.source.shape();
        let size: usize = shape.iter().product();
        let slots = order.chunks(self.global_batch).skip(numbers.start).take(numbers.len());
        let empty = |slots: &[usize]| {
            let own: Vec<usize> = self.shard.slots(slots.len()).map(|slot| slots[slot]).collect();
            HostBatch {
                images: vec![0; own.len() * size],
                labels: own.iter().map(|&sample| self.source.label(sample)).collect(),
                samples: own.into_iter().map(|sample| sample as u64).collect(),
                global_count: slots.len(),
                mixture: None,
            }
        };
        let mut batches: Vec<HostBatch> = slots.map(empty).collect();
        let mut wanted: Vec<(usize, &mut [u8])> = vec![];
        for HostBatch { images, samples, .. } in &mut batches {
            wanted.extend(samples.iter().map(|&sample| sample as usize).zip(images.chunks_exact_mut(size)));
        }
        self.source.read_all(&mut wanted)?;
        if let Some(augment) = &self.augment {
            let mut scratch = Vec::new();
            for (sample, image) in wanted {
                augment.apply(shape, draws, sample as u64, image, &mut scratch);
            }
            if augment.cutmix > 0.0 {
                self.mix(augment, &mut batches, order, draws)?;
            }
        }
        Ok(batches)
    }

    /// Pastes rectangles of other images of the epoch into those of `batches`. The other images are read together and varied
    /// here, whichever rank has them in its batches.
    fn mix(&self, augment: &Augment, batches: &mut [HostBatch], order: &[usize], draws: &Draws) -> Result<()> {
        let shape = self.source.shape();
        let size: usize = shape.iter().product();
        let patch = |sample: &u64| augment.patch(shape, draws, *sample, order.len());
        let patches: Vec<Option<Patch>> = batches.iter().flat_map(|batch| &batch.samples).map(patch).collect();
        let mut partners = vec![0; patches.iter().flatten().count() * size];
        let numbers = patches.iter().flatten().map(|patch| order[patch.partner]);
        let mut wanted: Vec<(usize, &mut [u8])> = numbers.zip(partners.chunks_exact_mut(size)).collect();
        self.source.read_all(&mut wanted)?;
        let mut scratch = Vec::new();
        for (sample, image) in wanted {
            augment.apply(shape, draws, sample as u64, image, &mut scratch);
        }
        let (mut patches, mut partners) = (patches.iter(), partners.chunks_exact(size));
        for batch in batches {
            let mut mixture = Mixture { labels: batch.labels.clone(), pixels: vec![0; batch.labels.len()] };
            for (row, image) in batch.images.chunks_exact_mut(size).enumerate() {
                let Some(patch) = patches.next().context("a draw for each image")? else { continue };
                patch.paste(shape, partners.next().context("an image for each patch")?, image);
                mixture.labels[row] = self.source.label(order[patch.partner]);
                mixture.pixels[row] = patch.pixels() as i64;
            }
            batch.mixture = Some(mixture);
        }
        Ok(())
    }
}

/// The batches of one epoch. A batch that cannot be made is an error and the last item; dropping it ends its threads.
pub struct Loader {
    workers: Vec<Worker>,
    /// The worker of each batch to come.
    turns: Box<dyn Iterator<Item = usize> + Send>,
    failure: Option<Error>,
}

struct Worker {
    receiver: Receiver<Result<HostBatch>>,
    thread: JoinHandle<()>,
}

impl Iterator for Loader {
    type Item = Result<HostBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let number = self.turns.next().filter(|&number| number < self.workers.len())?;
        let batch = self.workers[number].receiver.recv();
        if let Ok(Ok(batch)) = batch {
            return Some(Ok(batch));
        }
        // A thread that ends before its turn has panicked.
        let worker = self.workers.swap_remove(number);
        self.turns = Box::new(std::iter::empty());
        Some(batch.unwrap_or_else(|_| {
            let panic = worker.thread.join().err();
            let message = panic.as_ref().map_or("it ended too early", |panic| panic_message(&**panic));
            Err(anyhow!("a loader thread panicked: {message}"))
        }))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Closing the channels wakes threads that wait to send.
        let threads: Vec<_> = self.workers.drain(..).map(|worker| worker.thread).collect();
        for thread in threads {
            // The receiver is gone, so a panic cannot be reported.
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
