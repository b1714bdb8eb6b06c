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
    /// Seconds waited for images since the last record of a step, and before it in this epoch.
    waited: f64,
    waited_before: f64,
}

impl Clock {
    /// A clock that goes on from `before` seconds.
    pub(crate) fn new(before: f64) -> Self {
        let now = Instant::now();
        Self { before, began: now, images: 0.0, since: now, waited: 0.0, waited_before: 0.0 }
    }

    /// Seconds since the beginning of the run, over all sessions.
    pub(crate) fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// The time, without a rate.
    pub(crate) fn timing(&self) -> Timing {
        Timing { seconds: self.seconds(), ..Timing::default() }
    }

    /// The time, and the rate since the last call.
    pub(crate) fn lap(&mut self) -> Timing {
        let rate = self.images / self.since.elapsed().as_secs_f64().max(1e-9);
        let waited = std::mem::take(&mut self.waited);
        self.waited_before += waited;
        (self.images, self.since) = (0.0, Instant::now());
        Timing { seconds: self.seconds(), images_per_second: Some(rate), waited_for_data: Some(waited) }
    }

    /// Counts `seconds` in which a step waited for its images.
    pub(crate) fn waited(&mut self, seconds: f64) {
        self.waited += seconds;
    }

    /// The seconds waited for images in this epoch; the next one begins.
    pub(crate) fn end_of_epoch(&mut self) -> f64 {
        std::mem::take(&mut self.waited) + std::mem::take(&mut self.waited_before)
    }
}
