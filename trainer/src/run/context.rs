//! What does not change while a run is trained.

use std::sync::atomic::AtomicBool;

use comm::Communicator;

use crate::config::RunConfig;
use crate::run::folder::RunFolder;
use crate::run::prepare::Prepared;
use crate::system::Worker;

/// A run as this rank was told to train it.
#[derive(Clone, Copy)]
pub struct RunContext<'a> {
    /// The configuration.
    pub config: &'a RunConfig,
    /// The opened inputs.
    pub prepared: &'a Prepared,
    /// The run folder. Only the leader writes there.
    pub folder: &'a RunFolder,
    /// This rank, and its device.
    pub place: &'a Worker,
    /// Requests to stop.
    pub stop: Stop<'a>,
    /// The number of steps to trace, from the first one of this session.
    pub trace: Option<u64>,
}

/// Requests to stop, at the next step or after a given one.
#[derive(Clone, Copy)]
pub struct Stop<'a> {
    /// Raised by a signal, on any rank.
    pub requested: &'a AtomicBool,
    /// The number of steps after which to stop, counted from the beginning of the run.
    pub after_steps: Option<u64>,
}

impl<'a> RunContext<'a> {
    /// All ranks.
    pub fn ranks(&self) -> &'a dyn Communicator {
        self.place.ranks.as_ref()
    }

    /// Images of a step over all ranks.
    pub fn global_batch(&self) -> usize {
        self.config.batch.global(self.ranks().world_size())
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.prepared.train.len().div_ceil(self.global_batch()) as u64
    }
}
