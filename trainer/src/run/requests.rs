//! What a run is asked for between two steps, from all ranks to all ranks: no rank waits for it.
//!
//! After each step the ranks start a sum of what they were asked for, and read the one that they started a step before. So
//! all of them act after the same step, which is the one after the request.

use std::sync::atomic::Ordering;

use anyhow::Result;
use comm::HostSum;

use super::Run;

/// What any rank was asked for.
#[derive(Default)]
pub(super) struct Requests {
    /// To stop, or the step to stop after is done.
    pub(super) stop: bool,
    /// By its clock, to save a checkpoint.
    pub(super) checkpoint: bool,
    /// Seconds that steps waited for their images, of the rank that waited longest in each.
    pub(super) waited: f64,
}

impl Run<'_> {
    /// What was asked for up to the step before the last one. `waited` are the seconds that this rank waited for the last
    /// step's images. Where there is something to do, nothing is under way any more.
    pub(super) fn requests(&mut self, waited: f64) -> Result<Requests> {
        let sum = self.ask(waited)?;
        let earlier = self.asked.replace(sum);
        let mut requests = self.read(earlier)?;
        // Every rank knows this of itself.
        requests.stop |= self.stop.after_steps.is_some_and(|steps| self.header.progress.step >= steps);
        if requests.stop || requests.checkpoint {
            let Requests { stop, checkpoint, waited } = self.last_requests()?;
            requests.stop |= stop;
            requests.checkpoint |= checkpoint;
            requests.waited += waited;
        }
        Ok(requests)
    }

    /// What was asked for at the last step, which is waited for.
    pub(super) fn last_requests(&mut self) -> Result<Requests> {
        let sum = self.asked.take();
        self.read(sum)
    }

    /// Whether any rank has been asked to stop by now.
    pub(super) fn stop_asked(&self) -> Result<bool> {
        Ok(self.read(Some(self.ask(0.0)?))?.stop)
    }

    fn ask(&self, waited: f64) -> Result<HostSum> {
        let minutes = self.config.checkpoint.minutes;
        let due = minutes > 0.0 && self.saved.elapsed().as_secs_f64() >= 60.0 * minutes;
        let asked = [self.stop.requested.load(Ordering::Relaxed), due];
        let mut values = asked.map(|asked| f64::from(u8::from(asked))).to_vec();
        // A place for each rank: the longest wait is the one that all waited for.
        values.resize(2 + self.place.ranks.world_size(), 0.0);
        values[2 + self.place.ranks.rank()] = waited;
        self.place.ranks.start_host_sum(values)
    }

    fn read(&self, sum: Option<HostSum>) -> Result<Requests> {
        let Some(sum) = sum else { return Ok(Requests::default()) };
        let sums = sum.finish()?;
        let waited = sums[2..].iter().copied().fold(0.0, f64::max);
        Ok(Requests { stop: sums[0] > 0.0, checkpoint: sums[1] > 0.0, waited })
    }
}
