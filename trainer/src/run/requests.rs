//! What a run is asked for between two steps, from all ranks to all ranks: no rank waits for it.
//!
//! After each step the ranks start a sum of what they were asked for, and read the one that they started a step before. So
//! all of them act after the same step, which is the one after the request. Where a step is slow, they read the sum at once: the
//! wait for each other is short beside the step, and another step is not. A slow step also asks during its attack, and is given
//! up if there is a request; it is repeated when the run resumes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use comm::HostSum;

use super::active::Run;
use super::context::RunContext;
use crate::step::stopping::GivenUp;
use crate::system::Stage;

/// A step that takes longer is slow. The first steps count as slow, for nobody knows their pace.
const SLOW: Duration = Duration::from_millis(500);

/// What is asked for, before the waits of the ranks.
const FLAGS: usize = 3;

/// What any rank was asked for.
#[derive(Default)]
pub(super) struct Requests {
    /// To stop, or the step to stop after is done.
    pub(super) stop: bool,
    /// By its clock, to save a checkpoint.
    pub(super) checkpoint: bool,
    /// Seconds that steps waited for their images, of the rank that waited longest in each.
    pub(super) waited: f64,
    /// Whether steps are slow on any rank.
    slow: bool,
}

impl Requests {
    fn and(&self, later: &Self) -> Self {
        Self {
            stop: self.stop || later.stop,
            checkpoint: self.checkpoint || later.checkpoint,
            waited: self.waited + later.waited,
            slow: self.slow || later.slow,
        }
    }
}

/// Gives up a slow step if any rank has been asked to stop by now.
///
/// # Errors
/// [`GivenUp`], or a failure of the transport.
pub(super) fn ask_within_step(context: &RunContext, slow: bool) -> Result<()> {
    if !slow {
        return Ok(());
    }
    let mut asked = [f64::from(u8::from(context.stop.requested.load(Ordering::Relaxed)))];
    context.ranks().sum(&mut asked)?;
    if asked[0] > 0.0 { Err(GivenUp.into()) } else { Ok(()) }
}

impl Run<'_> {
    /// What was asked for up to the step before the last one. `waited` are the seconds that this rank waited for the last
    /// step's images. Where there is something to do, nothing is under way any more.
    pub(super) fn requests(&mut self, waited: f64) -> Result<Requests> {
        let earlier = self.asked.take();
        let sum = self.ask(waited)?;
        let mut requests = self.read(earlier)?;
        if self.slow {
            requests = requests.and(&self.read(Some(sum))?);
        } else {
            self.asked = Some(sum);
        }
        self.slow = requests.slow;
        // Every rank knows this of itself.
        requests.stop |= self.context.stop.after_steps.is_some_and(|steps| self.state.progress.step >= steps);
        if requests.stop || requests.checkpoint {
            requests = requests.and(&self.last_requests()?);
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
        let minutes = self.context.config.checkpoint.minutes;
        let due = minutes > 0.0 && self.saved.elapsed().as_secs_f64() >= 60.0 * minutes;
        let slow = self.context.place.activity.usually(Stage::Step).is_none_or(|step| step > SLOW);
        let asked = [self.context.stop.requested.load(Ordering::Relaxed), due, slow];
        let mut values = asked.map(|asked| f64::from(u8::from(asked))).to_vec();
        // A place for each rank: the longest wait is the one that all waited for.
        values.resize(FLAGS + self.context.ranks().world_size(), 0.0);
        values[FLAGS + self.context.ranks().rank()] = waited;
        self.context.ranks().start_host_sum(values)
    }

    fn read(&self, sum: Option<HostSum>) -> Result<Requests> {
        let Some(sum) = sum else { return Ok(Requests::default()) };
        let sums = sum.finish()?;
        let waited = sums[FLAGS..].iter().copied().fold(0.0, f64::max);
        Ok(Requests { stop: sums[0] > 0.0, checkpoint: sums[1] > 0.0, slow: sums[2] > 0.0, waited })
    }
}
