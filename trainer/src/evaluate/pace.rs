//! How long an evaluation has left.

use crate::config::Method;
use crate::evaluate::{Outcomes, Round};

/// A rate over fewer seconds says nothing about the rest.
const MEANINGFUL: f64 = 5.0;

/// The seconds and the forward passes of this session.
#[derive(Default)]
pub(super) struct Pace {
    seconds: f64,
    work: f64,
}

impl Pace {
    /// Counts a step of `round` over `images` images. The natural round says nothing about the attacks after it: it is one
    /// pass, and the sanity checks take several.
    pub(super) fn count(&mut self, round: &Round, outcomes: &Outcomes, images: usize, seconds: f64) {
        if round.method != Method::Natural || outcomes.rounds.len() == 1 {
            self.seconds += seconds;
            self.work += round.cost * images as f64;
        }
    }

    /// Seconds for `work` more forward passes, once a rate is known.
    pub(super) fn seconds_left(&self, work: f64) -> Option<f64> {
        (self.seconds >= MEANINGFUL && self.work > 0.0).then(|| self.seconds * work / self.work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Protocol, Suite};

    fn outcomes(names: &[&str]) -> Outcomes {
        let suite = Suite::named(names.iter().copied()).unwrap();
        Outcomes::new(&suite, suite.rounds(&Protocol::default(), 10), 100)
    }

    #[test]
    fn the_natural_round_gives_no_rate_for_attacks() {
        let outcomes = outcomes(&["natural", "pgd10"]);
        let [natural, pgd] = &outcomes.rounds[..] else { panic!("{:?}", outcomes.rounds) };
        let mut pace = Pace::default();
        pace.count(natural, &outcomes, 100, 30.0);
        assert_eq!(pace.seconds_left(1000.0), None);
        pace.count(pgd, &outcomes, 10, 4.0);
        assert_eq!(pace.seconds_left(1000.0), None);
        pace.count(pgd, &outcomes, 10, 6.0);
        let left = pace.seconds_left(pgd.cost * 80.0).unwrap();
        assert!((left - 40.0).abs() < 1e-9, "{left}");
    }

    #[test]
    fn alone_it_gives_its_own() {
        let outcomes = outcomes(&["natural"]);
        let mut pace = Pace::default();
        pace.count(&outcomes.rounds[0], &outcomes, 50, 10.0);
        let left = pace.seconds_left(outcomes.rounds[0].cost * 25.0).unwrap();
        assert!((left - 5.0).abs() < 1e-9, "{left}");
    }
}
