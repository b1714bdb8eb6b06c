//! Work of a step as it is called, operation by operation, or recorded once and replayed as a whole: a CUDA graph, which costs
//! the host one call instead of thousands.

use std::rc::Rc;

use anyhow::{Context, Error, Result};
use tch::{Device, Tensor, no_grad};
use torch_ext::{Graph, Moment};

use crate::attack::Noise;
use crate::batch::Batch;
use crate::loss::Term;
use crate::optimizer::Rate;
use crate::timeline::{Phase, Timeline};

/// With this variable in the environment, work is recorded on CPUs too, operation by operation: for tests. Where it is `waits`,
/// on all devices, what is recorded waits for the device, which cannot be.
const TEST: &str = "IAD_TEST_GRAPHS";

/// The number of times that work of one kind is done as it is called before it is recorded: libraries set themselves up, and
/// folded weights are made.
pub const WARM_UP: usize = 3;

/// So many calls without a recording are enough to say that there will be none.
const PATIENCE: usize = 200;

/// Whether a panic of this thread is caught where it is recording, and means that the recording is given up.
pub fn catches_panics() -> bool {
    torch_ext::is_recording()
}

/// Whether `device` can record.
pub fn can_record(device: Device) -> bool {
    device.is_cuda() || std::env::var_os(TEST).is_some()
}

/// What a recording freezes: work of another kind needs another.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    terms: Vec<Term>,
    shape: Vec<i64>,
    global_count: usize,
}

impl Key {
    /// The kind of work that these `terms` make of `batch`.
    pub fn of(batch: &Batch, terms: &[Term]) -> Self {
        Self { terms: terms.to_vec(), shape: batch.images.size(), global_count: batch.global_count }
    }
}

/// What differs from step to step.
pub struct Inputs<'a> {
    /// The images of this rank.
    pub batch: &'a Batch,
    /// Their random numbers.
    pub noise: &'a Noise,
    /// The learning rate.
    pub rate: Rate<'a>,
}

/// Does work on a batch, and from the fourth time in a row that it is of one kind, replays it.
pub struct Runner<T> {
    replays: Option<Replays<T>>,
    refusal: Option<String>,
}

struct Replays<T> {
    device: Device,
    timeline: Timeline,
    /// The kind of the last work, and how many times in a row it came.
    last: Option<(Key, usize)>,
    /// How often work was called.
    called: usize,
    recorded: Option<Recorded<T>>,
}

/// The memory that a recording reads, and what it makes.
struct Recorded<T> {
    key: Key,
    graph: Graph,
    batch: Batch,
    noise: Noise,
    rate: Tensor,
    done: Rc<T>,
}

impl<T> Default for Runner<T> {
    /// One that never records.
    fn default() -> Self {
        Self { replays: None, refusal: None }
    }
}

impl<T> Runner<T> {
    /// One that records work of `device`, and tells `timeline` of replays.
    pub fn recording(device: Device, timeline: &Timeline) -> Self {
        let replays = Replays { device, timeline: timeline.clone(), last: None, called: 0, recorded: None };
        Self { replays: Some(replays), refusal: None }
    }

    /// Does `work`, which must be a function of its inputs and of memory that stays where it is, at a learning rate of `rate`.
    /// Where it cannot be recorded it is done as it is called, from then on.
    ///
    /// # Errors
    /// Those of the work, or of the device.
    pub fn run(
        &mut self,
        key: &Key,
        batch: &Batch,
        noise: &Noise,
        rate: f64,
        mut work: impl FnMut(Inputs) -> Result<T>,
    ) -> Result<Rc<T>> {
        if self.replays.as_mut().is_some_and(|replays| replays.should_record(key, batch)) {
            self.record(key, batch, noise, &mut work);
        }
        if let Some(replays) = &self.replays
            && let Some(recorded) = replays.recorded.as_ref().filter(|recorded| recorded.key == *key)
        {
            return replays.timeline.during(Phase::Replay, "replay", || recorded.replay(batch, noise, rate));
        }
        if self.replays.as_mut().is_some_and(Replays::loses_patience) {
            self.refuse("batches, or their parts by batch.accumulate, of one size never come four times in a row");
        }
        work(Inputs { batch, noise, rate: Rate::Number(rate) }).map(Rc::new)
    }

    /// Why nothing is recorded any more, said once.
    pub fn take_refusal(&mut self) -> Option<String> {
        self.refusal.take()
    }

    fn record(&mut self, key: &Key, batch: &Batch, noise: &Noise, work: &mut impl FnMut(Inputs) -> Result<T>) {
        let Some(replays) = &mut self.replays else { return };
        // The last replay may be under way. The memory of the recording is free for the next one.
        let _ = Moment::now(replays.device).and_then(|moment| moment.wait());
        replays.recorded = None;
        match Recorded::new(key, replays.device, batch, noise, work) {
            Ok(recorded) => replays.recorded = Some(recorded),
            Err(reason) => self.refuse(format!("{reason:#}").lines().next().unwrap_or_default()),
        }
    }

    fn refuse(&mut self, reason: &str) {
        self.replays = None;
        self.refusal = Some(reason.to_string());
    }
}

impl<T> Replays<T> {
    /// Counts work that is called.
    fn loses_patience(&mut self) -> bool {
        self.called += 1;
        self.recorded.is_none() && self.called >= PATIENCE
    }

    fn should_record(&mut self, key: &Key, batch: &Batch) -> bool {
        let times = self.last.take().filter(|(last, _)| last == key).map_or(0, |(_, times)| times);
        self.last = Some((key.clone(), times + 1));
        let known = self.recorded.as_ref().is_some_and(|recorded| recorded.key == *key);
        times >= WARM_UP && !known && batch.labels.numel() > 0
    }
}

impl<T> Recorded<T> {
    fn new(
        key: &Key,
        device: Device,
        batch: &Batch,
        noise: &Noise,
        work: &mut impl FnMut(Inputs) -> Result<T>,
    ) -> Result<Self> {
        let (batch, noise) = (batch.copy(), noise.copy());
        let rate = Tensor::zeros([] as [i64; 0], (batch.images.kind(), device));
        let inputs = Inputs { batch: &batch, noise: &noise, rate: Rate::OnDevice(&rate) };
        let waits = std::env::var_os(TEST).is_some_and(|value| value == "waits");
        let recorded = Graph::record(device, || {
            let done = work(inputs);
            let _ = waits && batch.images.sum(batch.images.kind()).is_nonzero();
            done
        });
        let (graph, done) = recorded.map_err(Error::msg)?;
        Ok(Self { key: key.clone(), graph, done: Rc::new(done?), batch, noise, rate })
    }

    fn replay(&self, batch: &Batch, noise: &Noise, rate: f64) -> Result<Rc<T>> {
        self.batch.take(batch);
        self.noise.take(noise);
        let _ = no_grad(|| self.rate.shallow_clone().fill_(rate));
        self.graph.replay().map_err(Error::msg).context("the replay of a recorded step")?;
        Ok(Rc::clone(&self.done))
    }
}

#[cfg(test)]
mod tests;
