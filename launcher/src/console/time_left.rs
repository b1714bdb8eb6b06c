//! How many seconds a training has left.

use std::time::{Duration, Instant};

/// A rate over less time says nothing about the rest.
const MEANINGFUL: Duration = Duration::from_secs(5);

/// The first step that this session reported, and when. It includes the warm-up, which would distort the estimate.
#[derive(Default)]
pub(super) struct TimeLeft(Option<(u64, Instant)>);

impl TimeLeft {
    /// The seconds from `now`, after `step` steps, to the end of `all` steps, once they can be told.
    pub(super) fn after(&mut self, step: u64, all: u64, now: Instant) -> Option<f64> {
        let (first, began) = *self.0.get_or_insert((step, now));
        let (passed, steps) = (now.duration_since(began), step.saturating_sub(first));
        let left = || passed.as_secs_f64() / steps as f64 * all.saturating_sub(step) as f64;
        (passed >= MEANINGFUL && steps > 0).then(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_waits_for_enough_time_and_leaves_the_first_step_out() {
        let (mut left, began) = (TimeLeft::default(), Instant::now());
        let at = |seconds: f64| began + Duration::from_secs_f64(seconds);
        assert_eq!(left.after(1, 100, at(0.0)), None);
        assert_eq!(left.after(2, 100, at(4.9)), None);
        assert_eq!(left.after(11, 100, at(10.0)), Some(89.0));
        assert_eq!(left.after(100, 100, at(50.0)), Some(0.0));
    }

    #[test]
    fn a_resumed_run_counts_its_own_steps() {
        let (mut left, began) = (TimeLeft::default(), Instant::now());
        assert_eq!(left.after(80, 100, began), None);
        assert_eq!(left.after(80, 100, began + Duration::from_secs(9)), None);
        assert_eq!(left.after(90, 100, began + Duration::from_secs(10)), Some(10.0));
    }
}
