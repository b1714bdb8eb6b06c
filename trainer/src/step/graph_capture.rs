//! Runs the work of a step eagerly, operation by operation, or captures it once and replays it. On a GPU the capture is
//! a CUDA graph: one call of the host instead of thousands.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Error, Result};
use comm::Communicator;
use tch::{Device, Tensor, no_grad};
use torch_ext::{Graph, Moment};

use crate::config::Term;
use crate::method::attack::Noise;
use crate::step::batch::Batch;
use crate::step::optimizer::Rate;
use crate::system::{Phase, timeline::Timeline};

/// This environment variable captures work on CPUs too, operation by operation, for tests. The value `waits` inserts a
/// wait for the device into the captured work on every device, so the capture must fail.
const TEST: &str = "IAD_TEST_GRAPHS";

/// Eager runs of one kind of work before it is captured. In these, libraries initialise themselves and weights are
/// folded.
pub const WARM_UP: usize = 3;

/// After this many eager runs without a capture, nothing is captured any more.
const PATIENCE: usize = 200;

/// Whether this thread is capturing: a panic then cancels the capture, and is caught.
pub fn catches_panics() -> bool {
    torch_ext::is_recording()
}

/// Whether `device` can capture.
pub fn can_record(device: Device) -> bool {
    device.is_cuda() || std::env::var_os(TEST).is_some()
}

/// What a capture fixes. Work of another kind needs another capture.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    terms: Vec<Term>,
    shape: Vec<i64>,
    global_count: usize,
    perturbs_weights: bool,
    learners_move: Vec<bool>,
}

impl Key {
    /// The kind of work of these `terms` on `batch`.
    pub fn of(batch: &Batch, terms: &[Term]) -> Self {
        let (terms, shape, global_count) = (terms.to_vec(), batch.images.size(), batch.global_count);
        Self { terms, shape, global_count, perturbs_weights: false, learners_move: vec![] }
    }

    /// The kind of the same work with weights that are perturbed, or not.
    pub fn perturbing(self, perturbs_weights: bool) -> Self {
        Self { perturbs_weights, ..self }
    }

    /// The kind of the same work in which each learner moves, or not.
    pub fn moving(self, learners_move: Vec<bool>) -> Self {
        Self { learners_move, ..self }
    }
}

/// The inputs that differ from step to step.
pub struct Inputs<'a> {
    /// The images of this rank.
    pub batch: &'a Batch,
    /// The random numbers of the images.
    pub noise: &'a Noise,
    /// The learning rate.
    pub rate: Rate<'a>,
}

/// Runs work on a batch. From the fourth time in a row that it is of one kind, replays it.
pub struct Runner<T> {
    replays: Option<Replays<T>>,
    refusal: Option<String>,
}

struct Replays<T> {
    device: Device,
    timeline: Timeline,
    /// The ranks whose sums are part of the work, if they are. All of them capture it, or none.
    ranks: Option<Arc<dyn Communicator>>,
    /// The kind of the last work, and how many times in a row it came.
    last: Option<(Key, usize)>,
    /// The number of eager runs.
    called: usize,
    recorded: Option<Recorded<T>>,
}

/// The memory that a capture reads, and its results.
struct Recorded<T> {
    key: Key,
    graph: Graph,
    batch: Batch,
    noise: Noise,
    rate: Tensor,
    done: Rc<T>,
}

impl<T> Default for Runner<T> {
    /// A runner that never captures.
    fn default() -> Self {
        Self { replays: None, refusal: None }
    }
}

impl<T> Runner<T> {
    /// A runner that captures work of `device` and books replays on `timeline`.
    pub fn recording(device: Device, timeline: &Timeline) -> Self {
        let replays =
            Replays { device, timeline: timeline.clone(), ranks: None, last: None, called: 0, recorded: None };
        Self { replays: Some(replays), refusal: None }
    }

    /// The same for work that sums over `ranks`: all of them make the same calls of the runner. They capture the same work at the
    /// same time, and replay it only if all could.
    pub fn with_sums_over(mut self, ranks: &Arc<dyn Communicator>) -> Self {
        if let Some(replays) = &mut self.replays {
            replays.ranks = Some(Arc::clone(ranks));
        }
        self
    }

    /// Runs `work` at the learning rate `rate`. The work must be a function of its inputs and of memory that stays in
    /// place. If a capture fails, all later work runs eagerly.
    ///
    /// # Errors
    /// Errors of the work or of the device.
    pub fn run(
        &mut self,
        key: &Key,
        batch: &Batch,
        noise: &Noise,
        rate: f64,
        mut work: impl FnMut(Inputs) -> Result<T>,
    ) -> Result<Rc<T>> {
        if self.replays.as_mut().is_some_and(|replays| replays.should_record(key, batch)) {
            self.record(key, batch, noise, &mut work)?;
        }
        if let Some(replays) = &self.replays
            && let Some(recorded) = replays.recorded.as_ref().filter(|recorded| recorded.key == *key)
        {
            return replays.timeline.during(Phase::Replay, "replay", || replays.replay(recorded, batch, noise, rate));
        }
        if self.replays.as_mut().is_some_and(Replays::loses_patience) {
            self.refuse("batches, or their parts by batch.accumulate, of one size never come four times in a row");
        }
        work(Inputs { batch, noise, rate: Rate::Number(rate) }).map(Rc::new)
    }

    /// Whether it captures.
    pub fn records(&self) -> bool {
        self.replays.is_some()
    }

    /// The reason why nothing is captured any more, returned once.
    pub fn take_refusal(&mut self) -> Option<String> {
        self.refusal.take()
    }

    fn record(
        &mut self,
        key: &Key,
        batch: &Batch,
        noise: &Noise,
        work: &mut impl FnMut(Inputs) -> Result<T>,
    ) -> Result<()> {
        let Some(replays) = &mut self.replays else { return Ok(()) };
        // The last replay may still run. The next capture may reuse the memory of this one.
        let _ = Moment::now(replays.device).and_then(|moment| moment.wait());
        replays.recorded = None;
        let timeline = replays.timeline.clone();
        let recorded = timeline.untimed(|| replays.together(|device| Recorded::new(key, device, batch, noise, work)));
        match recorded? {
            Ok(recorded) => replays.recorded = Some(recorded),
            Err(reason) => self.refuse(format!("{reason:#}").lines().next().unwrap_or_default()),
        }
        Ok(())
    }

    fn refuse(&mut self, reason: &str) {
        self.replays = None;
        self.refusal = Some(reason.to_string());
    }
}

impl<T> Replays<T> {
    /// Counts an eager run.
    fn loses_patience(&mut self) -> bool {
        self.called += 1;
        self.recorded.is_none() && self.called >= PATIENCE
    }

    fn should_record(&mut self, key: &Key, batch: &Batch) -> bool {
        let times = self.last.take().filter(|(last, _)| last == key).map_or(0, |(_, times)| times);
        self.last = Some((key.clone(), times + 1));
        let known = self.recorded.as_ref().is_some_and(|recorded| recorded.key == *key);
        // Keys are alike on all ranks, and so is whether each of them has an image.
        let every_rank_has_images = match &self.ranks {
            Some(ranks) => batch.global_count >= ranks.world_size(),
            None => batch.labels.numel() > 0,
        };
        times >= WARM_UP && !known && every_rank_has_images
    }

    /// What `record` has recorded, if all ranks that take part could record it; or why not.
    fn together(&self, record: impl FnOnce(Device) -> Result<Recorded<T>>) -> Result<Result<Recorded<T>>> {
        let Some(ranks) = &self.ranks else { return Ok(record(self.device)) };
        let (mut record, mut recorded) = (Some(record), None);
        let captured = ranks.capture(&mut || {
            recorded = record.take().map(|record| record(self.device)).transpose()?;
            Ok(())
        })?;
        Ok(captured.and_then(|()| recorded.context("the transport captured nothing")))
    }

    fn replay(&self, recorded: &Recorded<T>, batch: &Batch, noise: &Noise, rate: f64) -> Result<Rc<T>> {
        recorded.take(batch, noise, rate);
        let mut launch = || recorded.graph.replay().map_err(Error::msg);
        match &self.ranks {
            Some(ranks) => ranks.replay(&mut launch),
            None => launch(),
        }
        .context("the replay of a recorded step")?;
        Ok(Rc::clone(&recorded.done))
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
        let mut failure = None;
        let recorded = Graph::record(device, || {
            let done = work(inputs).map_err(|error| failure = Some(error)).ok();
            let _ = waits && batch.images.sum(batch.images.kind()).is_nonzero();
            done
        });
        // What the work says tells more than what libtorch says of the recording that it broke.
        if let Some(error) = failure {
            return Err(error);
        }
        let (graph, done) = recorded.map_err(Error::msg)?;
        let done = Rc::new(done.context("the work did not end")?);
        Ok(Self { key: key.clone(), graph, done, batch, noise, rate })
    }

    /// Writes the inputs of a step into the memory that the graph reads.
    fn take(&self, batch: &Batch, noise: &Noise, rate: f64) {
        self.batch.take(batch);
        self.noise.take(noise);
        let _ = no_grad(|| self.rate.shallow_clone().fill_(rate));
    }
}

#[cfg(test)]
mod tests;
