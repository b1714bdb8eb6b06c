//! What the ranks of one run can do together.

use anyhow::{Result, bail};
use tch::{Kind, Tensor};

use crate::clock::Alignment;
use crate::host_sum::HostSum;

/// What the ranks of one run can do together. Every rank must make the same calls in the same order.
pub trait Communicator: Send + Sync {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn world_size(&self) -> usize;

    /// Starts replacing `tensor` (float32, float64 or int64, between GPUs also bfloat16; contiguous) by its sum over the ranks, after the work
    /// already queued on it. Its values may be read after [`finish_sums`](Self::finish_sums).
    ///
    /// # Errors
    /// A tensor of another type or layout, or a failure of the transport.
    fn start_sum(&self, tensor: &Tensor) -> Result<()>;

    /// Whether a started sum runs while the caller computes, so that an early start gains time.
    fn overlaps(&self) -> bool;

    /// Whether [`start_sum`](Self::start_sum) takes tensors of type `kind`.
    fn sums(&self, kind: Kind) -> bool;

    /// Orders all work that is queued later after every started sum.
    ///
    /// # Errors
    /// A failure of the transport.
    fn finish_sums(&self) -> Result<()>;

    /// Replaces `tensor` by its sum over the ranks for all work that is queued later: a start and a finish in one, which need not
    /// wait for sums that were started before.
    ///
    /// # Errors
    /// As those of [`start_sum`](Self::start_sum).
    fn sum_at_once(&self, tensor: &Tensor) -> Result<()> {
        self.start_sum(tensor)?;
        self.finish_sums()
    }

    /// Whether a graph of the rank's GPU can hold the sums that are started while it is captured.
    fn captures(&self) -> bool {
        false
    }

    /// Does `work`, in which this rank captures a graph of its GPU, and agrees with the others whether all could. Sums that are
    /// started in it are made by each replay of the graph, and all ranks capture the same ones. Inside: why `work` failed, or
    /// that another rank's did.
    ///
    /// # Errors
    /// A failure of the transport.
    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Result<()>> {
        let captured = work();
        let mut failed = [f64::from(captured.is_err())];
        self.sum(&mut failed)?;
        Ok(match failed[0] > 0.0 {
            true => captured.and_then(|()| bail!("another rank could not record them, and its log says why")),
            false => captured,
        })
    }

    /// Queues a replay of captured sums by `launch`; all ranks do.
    ///
    /// # Errors
    /// Those of `launch`; a failure of the transport.
    fn replay(&self, launch: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        launch()
    }

    /// Copies `tensor` of rank 0 to every rank.
    ///
    /// # Errors
    /// A tensor of another type or layout, or a failure of the transport.
    fn broadcast(&self, tensor: &Tensor) -> Result<()>;

    /// Adds up host values (counts, metrics, stop flags) over the ranks.
    ///
    /// # Errors
    /// A failure of the transport.
    fn sum(&self, values: &mut [f64]) -> Result<()>;

    /// Starts adding up host values over the ranks and returns at once; other calls may come before its
    /// [`finish`](HostSum::finish).
    ///
    /// # Errors
    /// A failure of the transport.
    fn start_host_sum(&self, values: Vec<f64>) -> Result<HostSum>;

    /// Every rank's text, in rank order, on every rank.
    ///
    /// # Errors
    /// A failure of the transport.
    fn gather(&self, text: &str) -> Result<Vec<String>>;

    /// Compares this rank's `clock` (seconds) with the leader's.
    ///
    /// # Errors
    /// A failure of the transport.
    fn align(&self, clock: &dyn Fn() -> f64) -> Result<Alignment>;

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// A failure of the transport.
    fn barrier(&self) -> Result<()>;

    /// Ends every rank with `code`; for errors after which the others would wait forever.
    fn abort(&self, code: i32) -> !;

    /// Whether this rank is the one that writes files and speaks to the user.
    fn is_leader(&self) -> bool {
        self.rank() == 0
    }
}
