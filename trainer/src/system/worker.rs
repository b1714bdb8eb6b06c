//! This process as a worker of a run.

use std::sync::Arc;

use comm::Communicator;
use tch::Device;

use super::Activity;

/// The ranks and the device that this process computes with.
#[derive(Clone)]
pub struct Worker {
    /// The ranks of the run.
    pub ranks: Arc<dyn Communicator>,
    /// This rank's device.
    pub device: Device,
    /// The current activity of this rank, for its observers.
    pub activity: Activity,
}
