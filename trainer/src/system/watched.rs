//! Ranks whose waiting for each other can be seen from another thread.

use std::sync::Arc;

use anyhow::Result;
use comm::{Alignment, Communicator, HostSum};
use tch::{Kind, Tensor};

use super::Activity;

/// A transport whose blocking calls are noted in an [`Activity`].
pub struct Watched {
    ranks: Arc<dyn Communicator>,
    activity: Activity,
}

impl Watched {
    /// The same ranks, watched.
    pub fn new(ranks: Arc<dyn Communicator>, activity: Activity) -> Self {
        Self { ranks, activity }
    }
}

impl Communicator for Watched {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn world_size(&self) -> usize {
        self.ranks.world_size()
    }

    fn start_sum(&self, tensor: &Tensor) -> Result<()> {
        self.activity.sums((tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64);
        self.activity.wait_in("an all-reduce", || self.ranks.start_sum(tensor))
    }

    fn sum_at_once(&self, tensor: &Tensor) -> Result<()> {
        self.activity.sums((tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64);
        self.activity.wait_in("an all-reduce", || self.ranks.sum_at_once(tensor))
    }

    fn captures(&self) -> bool {
        self.ranks.captures()
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Result<()>> {
        self.ranks.capture(work)
    }

    fn replay(&self, launch: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        self.ranks.replay(launch)
    }

    fn overlaps(&self) -> bool {
        self.ranks.overlaps()
    }

    fn sums(&self, kind: Kind) -> bool {
        self.ranks.sums(kind)
    }

    fn finish_sums(&self) -> Result<()> {
        self.activity.wait_in("an all-reduce", || self.ranks.finish_sums())
    }

    fn broadcast(&self, tensor: &Tensor) -> Result<()> {
        self.activity.wait_in("a broadcast", || self.ranks.broadcast(tensor))
    }

    fn sum(&self, values: &mut [f64]) -> Result<()> {
        self.activity.wait_in("an all-reduce of host values", || self.ranks.sum(values))
    }

    fn start_host_sum(&self, values: Vec<f64>) -> Result<HostSum> {
        let sum = self.ranks.start_host_sum(values)?;
        let activity = self.activity.clone();
        Ok(HostSum::new(move || activity.wait_in("an all-reduce of host values", || sum.finish())))
    }

    fn gather(&self, text: &str) -> Result<Vec<String>> {
        self.activity.wait_in("an all-gather", || self.ranks.gather(text))
    }

    fn align(&self, clock: &dyn Fn() -> f64) -> Result<Alignment> {
        self.activity.wait_in("a comparison of clocks", || self.ranks.align(clock))
    }

    fn barrier(&self) -> Result<()> {
        self.activity.wait_in("a barrier", || self.ranks.barrier())
    }

    fn abort(&self, code: i32) -> ! {
        self.ranks.abort(code)
    }
}
