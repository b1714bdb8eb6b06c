//! How long a run has taken, over all its sessions, where the time went, and how fast it is.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use comm::Communicator;
use tch::Device;

use crate::run::effort::Effort;
use crate::run::events::Timing;
use crate::system::{Phase, Seconds};

/// Seconds and images of this session.
pub(crate) struct Clock {
    /// Seconds of earlier sessions.
    before: f64,
    began: Instant,
    effort: Effort,
    /// Floating-point operations of a step for one image.
    pub(crate) per_image: f64,
    /// Since the last record of a step, or since the epoch began.
    recent: Passed,
    /// Before it, in this epoch.
    earlier: Passed,
}

/// What passed in some steps.
#[derive(Clone, Copy, Default)]
struct Passed {
    /// Images trained on.
    images: f64,
    /// Seconds waited for images.
    waited: f64,
    phases: Seconds,
}

impl Passed {
    fn add(&mut self, other: Self) {
        self.images += other.images;
        self.waited += other.waited;
        self.phases.iter_mut().zip(other.phases).for_each(|(sum, seconds)| *sum += seconds);
    }
}

impl Clock {
    /// A clock that starts at `before` seconds.
    pub(crate) fn new(before: f64, effort: Effort) -> Self {
        let (recent, earlier) = <(Passed, Passed)>::default();
        Self { before, began: Instant::now(), effort, per_image: 0.0, recent, earlier }
    }

    /// The operations of the steps to come.
    pub(crate) fn effort(&self) -> &Effort {
        &self.effort
    }

    /// Seconds since the beginning of the run, over all sessions.
    pub(crate) fn seconds(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }

    /// The time, without a rate.
    pub(crate) fn timing(&self) -> Timing {
        Timing::of(self.seconds())
    }

    /// The time, and the rate since the last call or since the epoch began. The images and the seconds of a rate are those
    /// of the same steps.
    pub(crate) fn lap(&mut self) -> Timing {
        let passed = std::mem::take(&mut self.recent);
        self.earlier.add(passed);
        let rate = passed.images / passed.phases.iter().sum::<f64>().max(1e-9);
        Timing {
            waited_for_data: Some(passed.waited),
            phases: named(&passed.phases),
            ..self.rated(self.seconds(), rate)
        }
    }

    /// Counts `seconds` in which a step waited for its images, of the rank that waited longest.
    pub(crate) fn waited(&mut self, seconds: f64) {
        self.recent.waited += seconds;
    }

    /// Counts the time of a step, or between steps.
    pub(crate) fn passed(&mut self, phases: Seconds) {
        self.recent.add(Passed { phases, ..Passed::default() });
    }

    /// Counts the images of a step.
    pub(crate) fn trained(&mut self, images: f64) {
        self.recent.images += images;
    }

    /// An epoch of `images` images that took `seconds`, as the ranks saw it together; the next one begins.
    ///
    /// # Errors
    /// A failure of the transport.
    pub(crate) fn epoch(
        &mut self,
        images: f64,
        seconds: f64,
        ranks: &dyn Communicator,
        device: Device,
    ) -> Result<Timing> {
        let mut passed = std::mem::take(&mut self.earlier);
        passed.add(std::mem::take(&mut self.recent));
        // Behind the phases, a place for the memory of each rank.
        let mut values = passed.phases.to_vec();
        values.resize(Phase::ALL.len() + ranks.world_size(), 0.0);
        values[Phase::ALL.len() + ranks.rank()] = torch_ext::peak_memory(device).unwrap_or(0) as f64;
        ranks.sum(&mut values)?;
        let (phases, memory) = values.split_at(Phase::ALL.len());
        let mut mean = Seconds::default();
        mean.iter_mut().zip(phases).for_each(|(mean, sum)| *mean = sum / ranks.world_size() as f64);
        let peak = memory.iter().copied().fold(0.0, f64::max) as u64;
        Ok(Timing {
            waited_for_data: Some(passed.waited),
            phases: named(&mean),
            peak_memory: Some(peak).filter(|bytes| *bytes > 0),
            ..self.rated(seconds, images / seconds.max(1e-9))
        })
    }

    fn rated(&mut self, seconds: f64, rate: f64) -> Timing {
        let flops = rate * self.per_image;
        let utilisation = Some(self.effort.utilisation(flops));
        Timing { seconds, images_per_second: Some(rate), flops: Some(flops), utilisation, ..Timing::default() }
    }
}

fn named(phases: &Seconds) -> BTreeMap<String, f64> {
    let all = Phase::ALL.iter().zip(phases);
    // Most runs replay nothing.
    let told = all.filter(|(phase, seconds)| **phase != Phase::Replay || **seconds > 0.0);
    told.map(|(phase, seconds)| (phase.name().to_string(), *seconds)).collect()
}

#[cfg(test)]
mod tests {
    use comm::Single;

    use super::*;

    fn step(clock: &mut Clock, images: f64, seconds: f64) {
        let mut phases = Seconds::default();
        phases[0] = seconds;
        clock.passed(phases);
        clock.trained(images);
    }

    #[test]
    fn a_rate_is_of_the_steps_since_the_last_record_of_the_same_epoch() {
        let mut clock = Clock::new(0.0, Effort::of_peak(100.0));
        clock.per_image = 1.0;
        step(&mut clock, 30.0, 1.0);
        step(&mut clock, 30.0, 3.0);
        let timing = clock.lap();
        assert_eq!((timing.images_per_second, timing.utilisation), (Some(15.0), Some(0.15)));
        // These are recorded with the epoch, not with the next epoch's first step.
        step(&mut clock, 1000.0, 1.0);
        let epoch = clock.epoch(1060.0, 5.0, &Single, Device::Cpu).unwrap();
        assert_eq!(epoch.images_per_second, Some(212.0));
        assert_eq!(epoch.phases.values().sum::<f64>(), 5.0);
        step(&mut clock, 30.0, 2.0);
        assert_eq!(clock.lap().images_per_second, Some(15.0));
    }
}
