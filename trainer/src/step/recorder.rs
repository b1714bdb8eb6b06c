//! Captures the work of a step on the device and replays it: the whole step, only the parts before the all-reduce, or
//! nothing.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Error, Result};
use comm::Communicator;
use tch::Kind;
use torch_ext::Queue;

use super::batch::Batch;
use super::diagnostics::{Computed, Values};
use super::graph_capture::{Inputs, Key, Runner, can_record};
use crate::config::Precision;
use crate::method::attack::Noise;
use crate::method::networks::Networks;

/// Runs steps eagerly or as replays. It decides once what to capture. If a capture fails, the work runs eagerly from
/// then on, and a warning gives the reason.
pub struct Recorder {
    whole: Runner<Computed>,
    parts: PartRecorder,
    captures_parts: bool,
    warning: Option<String>,
    /// The queue of captured work; a capture needs a queue of its own.
    _queue: Option<Queue>,
}

/// Runs the parts of a step before the all-reduce.
pub struct PartRecorder(Runner<Values>);

impl Recorder {
    /// A recorder for steps of `networks` in `precision`, on `ranks`, with or without their sums.
    ///
    /// # Errors
    /// The device gives no queue.
    pub fn new(
        precision: Precision,
        networks: &Networks,
        ranks: &Arc<dyn Communicator>,
        with_sums: bool,
    ) -> Result<Self> {
        let mut recorder = Self {
            whole: Runner::default(),
            parts: PartRecorder(Runner::default()),
            captures_parts: false,
            warning: None,
            _queue: None,
        };
        if !precision.cuda_graphs {
            return Ok(recorder);
        }
        let device = networks.student.device();
        recorder._queue = Some(Queue::own(device).map_err(Error::msg)?);
        let chosen = match can_record(device) {
            true => recorder.capture(networks, ranks, with_sums),
            false => Err("only GPUs do so".into()),
        };
        recorder.warning = chosen.err().map(|reason| not_captured(&reason));
        Ok(recorder)
    }

    /// Decides what is captured from now on.
    ///
    /// # Errors
    /// The reason why nothing can be captured.
    pub(super) fn capture(
        &mut self,
        networks: &Networks,
        ranks: &Arc<dyn Communicator>,
        with_sums: bool,
    ) -> Result<(), String> {
        let Networks { student, timeline, .. } = networks;
        // The fused SGD kernel accepts a device-side learning rate only in float32.
        let eager_update = student.device().is_cuda() && student.kind() == Kind::Double;
        if with_sums && !eager_update {
            if student.device().is_cuda() && !ranks.captures() {
                return Err("sums by MPI pass through the host; comm.in_graphs needs NCCL".into());
            }
            self.whole = Runner::recording(student.device(), timeline).with_sums_over(ranks);
            return Ok(());
        }
        if networks.trained().any(|model| model.across_ranks) {
            let ways = "with batch_norm.across_ranks = \"local\", or with comm.in_graphs, they are";
            return Err(format!("batch norm sums over the ranks in them; {ways}"));
        }
        if networks.exchanges && ranks.world_size() > 1 {
            return Err("a term of the loss needs numbers of all ranks in them; with comm.in_graphs they are".into());
        }
        if ranks.world_size() == 1 && !eager_update {
            self.whole = Runner::recording(student.device(), timeline);
        } else {
            self.parts = PartRecorder(Runner::recording(student.device(), timeline));
            self.captures_parts = true;
        }
        Ok(())
    }

    /// Captures no parts: a step of perturbed weights makes two kinds of them in turn, and a sum between.
    pub fn leave_parts_alone(&mut self) {
        if std::mem::take(&mut self.captures_parts) {
            self.parts = PartRecorder(Runner::default());
            let reason = "a step of [awp] is recorded as a whole or not at all";
            self.warning = Some(not_captured(reason));
        }
    }

    /// Captures nothing, for a `reason`.
    pub fn leave_all_alone(&mut self, reason: &str) {
        if std::mem::take(&mut self.captures_parts) || self.whole.records() {
            (self.whole, self.parts) = (Runner::default(), PartRecorder(Runner::default()));
            self.warning = Some(not_captured(reason));
        }
    }

    /// Whether parts of steps are captured. A captured part cannot start a sum.
    pub fn captures_parts(&self) -> bool {
        self.captures_parts
    }

    /// Runs or replays the `work` of a whole step at the learning rate `rate`.
    ///
    /// # Errors
    /// Errors of the work or of the device.
    pub fn step(
        &mut self,
        key: &Key,
        batch: &Batch,
        noise: &Noise,
        rate: f64,
        mut work: impl FnMut(Inputs, &mut PartRecorder) -> Result<Computed>,
    ) -> Result<Rc<Computed>> {
        let Self { whole, parts, .. } = self;
        whole.run(key, batch, noise, rate, |inputs| work(inputs, parts))
    }

    /// A message for the user, returned once.
    pub fn take_warning(&mut self) -> Option<String> {
        let refusal = self.whole.take_refusal().or_else(|| self.parts.0.take_refusal());
        self.warning.take().or(refusal.map(|reason| not_captured(&reason)))
    }

    /// Captures parts of steps on any number of ranks, for tests.
    #[cfg(test)]
    pub(super) fn capture_parts_of(&mut self, networks: &Networks) {
        self.parts = PartRecorder(Runner::recording(networks.student.device(), &networks.timeline));
    }
}

impl PartRecorder {
    /// Runs or replays the `work` of one part. Parts have no learning rate.
    ///
    /// # Errors
    /// Errors of the work or of the device.
    pub fn part(
        &mut self,
        key: &Key,
        batch: &Batch,
        noise: &Noise,
        work: impl Fn(Inputs) -> Result<Values>,
    ) -> Result<Rc<Values>> {
        self.0.run(key, batch, noise, 0.0, work)
    }
}

fn not_captured(reason: &str) -> String {
    format!("precision.cuda_graphs: steps are not recorded, and run one operation at a time: {reason}")
}
