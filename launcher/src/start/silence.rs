//! Who has fallen silent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A process that looks as often as this has not slept.
const LOOK: Duration = Duration::from_secs(1);

/// The time of the last heartbeat of each rank.
pub(super) struct Silence {
    limit: Duration,
    heard: BTreeMap<usize, Instant>,
    looked: Option<Instant>,
}

impl Silence {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, heard: BTreeMap::new(), looked: None }
    }

    pub(super) fn heard(&mut self, rank: usize, now: Instant) {
        self.heard.insert(rank, now);
    }

    /// A rank that was heard once and has been silent for too long by `now`. The time in which this process itself did not
    /// look, stopped or starved of its processor, is nobody's silence.
    pub(super) fn lost(&mut self, now: Instant) -> Option<usize> {
        let slept = self.looked.map_or(Duration::ZERO, |looked| now - looked).saturating_sub(LOOK);
        self.looked = Some(now);
        if slept > Duration::ZERO {
            self.heard.values_mut().for_each(|heard| *heard = (*heard + slept).min(now));
        }
        self.heard.iter().find(|(_, heard)| now.duration_since(**heard) > self.limit).map(|(rank, _)| *rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn who_was_heard_and_falls_silent_is_lost() {
        let began = Instant::now();
        let mut silent = Silence::new(seconds(20));
        silent.heard(2, began);
        silent.heard(5, began);
        for second in 0..60 {
            let now = began + seconds(second);
            silent.heard(2, now);
            assert_eq!(silent.lost(now), (second > 20).then_some(5), "second {second}");
        }
        assert_eq!(Silence::new(seconds(20)).lost(began + seconds(100)), None, "nobody was ever heard");
    }

    #[test]
    fn the_own_sleep_is_nobodys_silence() {
        let began = Instant::now();
        let mut silent = Silence::new(seconds(20));
        silent.heard(5, began);
        assert_eq!(silent.lost(began + seconds(1)), None);
        assert_eq!(silent.lost(began + seconds(500)), None, "it woke up a moment ago");
        let lost: Vec<u64> = (501..560).filter(|&second| silent.lost(began + seconds(second)).is_some()).collect();
        // Two of its 20 s had passed: one before the sleep, and one that a look may always take.
        assert_eq!(lost.first(), Some(&519), "{lost:?}");
    }
}
