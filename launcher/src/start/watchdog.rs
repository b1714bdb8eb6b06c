//! When a rank counts as hung: the budget of each stage.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use trainer::config::Watchdog;
use trainer::system::{Doing, Stage};

/// A stage may take so many times its median.
const TIMES: u32 = 20;

static SET: Mutex<Option<Watchdog>> = Mutex::new(None);

/// Takes the budgets that a configuration sets.
pub(crate) fn set_budgets(watchdog: Watchdog) {
    *SET.lock().unwrap_or_else(PoisonError::into_inner) = Some(watchdog);
}

/// How long the stage may take: what the configuration sets, else [`TIMES`] its usual time, but no less than a time of grace.
/// None: any length.
pub(super) fn budget(doing: &Doing) -> Option<Duration> {
    let set = SET.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default();
    budget_of(&set, doing.stage, doing.usually)
}

fn budget_of(set: &Watchdog, stage: Stage, usually: Option<Duration>) -> Option<Duration> {
    if let Some(seconds) = set.seconds(stage) {
        return Duration::try_from_secs_f64(seconds).ok().filter(|budget| !budget.is_zero());
    }
    // The first step measures and captures; a batch of Square takes thousands of passes where one of PGD takes tens.
    let (first, least) = match stage {
        Stage::Start | Stage::Evaluation => (7200, 7200),
        Stage::Step => (1800, 120),
        Stage::Data | Stage::Save => (1800, 600),
        Stage::End => (300, 300),
    };
    Some(usually.map_or(Duration::from_secs(first), |usually| (usually * TIMES).max(Duration::from_secs(least))))
}

/// The budget of a stage that has exceeded it.
pub(super) fn exceeded(doing: &Doing) -> Option<Duration> {
    budget(doing).filter(|budget| doing.lasts > *budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_follow_the_pace_unless_they_are_set() {
        let seconds = Duration::from_secs;
        let mut set = Watchdog::default();
        assert_eq!(budget_of(&set, Stage::Step, None), Some(seconds(1800)));
        assert_eq!(budget_of(&set, Stage::Step, Some(seconds(1))), Some(seconds(120)));
        assert_eq!(budget_of(&set, Stage::Step, Some(seconds(21))), Some(seconds(420)));
        set.step = Some(7.5);
        assert_eq!(budget_of(&set, Stage::Step, Some(seconds(21))), Some(Duration::from_millis(7500)));
        assert_eq!(budget_of(&set, Stage::Data, Some(seconds(100))), Some(seconds(2000)));
        set.step = Some(0.0);
        assert_eq!(budget_of(&set, Stage::Step, Some(seconds(21))), None, "0 is any length");
    }
}
