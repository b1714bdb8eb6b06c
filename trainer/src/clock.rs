//! How long a run has taken, over all its sessions, and how fast it is.

use std::time::Instant;

use crate::metrics::Timing;

/// Seconds and images of this session.
pub(crate) struct Clock {
    /// Seconds of earlier sessions.
    before: f64,
    began: Instant,
    /// Images trained on since the clock was last asked for a rate, and since when.
    pub(crate) images: f64,
    pub(crate) since: Instant,
}

impl Clock {
    /// A clock that goes on from `before` seconds.
    pub(crate) fn new(before: f64) -> Self {
        let now = Instant::now();
        Self { before, began: now, images: 0.0, since: now }
    }

    /// Seconds since the beginning of the run, over all sessions.
    pub(crate) fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// The time, without a rate.
    pub(crate) fn timing(&self) -> Timing {
        Timing { seconds: self.seconds(), images_per_second: None }
    }

    /// The time, and the rate since the last call.
    pub(crate) fn lap(&mut self) -> Timing {
        let rate = self.images / self.since.elapsed().as_secs_f64().max(1e-9);
        (self.images, self.since) = (0.0, Instant::now());
        Timing { seconds: self.seconds(), images_per_second: Some(rate) }
    }
}
