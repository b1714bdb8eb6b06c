//! `[guard]`: what a run watches of itself, and what it does about it.

use datasets::UserError;
use serde::{Deserialize, Serialize};

use super::range::must;

/// `[guard]`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    /// Steps between two comparisons of the ranks' states; 0 for none.
    pub compare_every: u64,
    /// What follows an outlier of the gradient or an accuracy that falls to chance.
    pub on_collapse: OnCollapse,
    /// The norm of an outlier of the gradient, in medians of the steps before; 0 for none.
    pub gradient_factor: f64,
    /// Whether a robust accuracy that falls to chance is a collapse.
    pub accuracy_floor: bool,
    /// What each rollback multiplies the learning rate by.
    pub rate_factor: f64,
    /// The number of rollbacks, after which outliers are skipped.
    pub max_rollbacks: u64,
}

/// What follows a collapse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCollapse {
    /// An event.
    #[default]
    Warn,
    /// An event, and the step of an outlier moves nothing.
    Skip,
    /// An event, and the run goes back to the last checkpoint of an epoch, with a lower rate.
    Rollback,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            compare_every: 100,
            on_collapse: OnCollapse::Warn,
            gradient_factor: 50.0,
            accuracy_floor: true,
            rate_factor: 0.5,
            max_rollbacks: 3,
        }
    }
}

impl Guard {
    /// The part that decides the result of a run: comparing and warning change nothing.
    pub(super) fn lasting(&self) -> Self {
        match self.on_collapse {
            OnCollapse::Warn => Self::default(),
            OnCollapse::Skip | OnCollapse::Rollback => Self { compare_every: Self::default().compare_every, ..*self },
        }
    }

    /// Whether nothing is set, so that nothing is written down.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<(), UserError> {
        let every = self.compare_every;
        must(every <= 1_000_000_000, "guard.compare_every", every, "0 (never) to 1,000,000,000 steps")?;
        let factor = self.gradient_factor;
        let outlier = factor == 0.0 || (1.0..=1e9).contains(&factor);
        must(outlier, "guard.gradient_factor", factor, "0 (never), or 1 to 10^9 medians")?;
        let factor = self.rate_factor;
        must(factor > 0.0 && factor <= 1.0, "guard.rate_factor", factor, "above 0, up to 1")?;
        must(self.max_rollbacks <= 1000, "guard.max_rollbacks", self.max_rollbacks, "0 to 1,000")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_and_comparisons_are_no_part_of_a_run() {
        let guard = Guard { compare_every: 7, gradient_factor: 3.0, ..Guard::default() };
        assert!(guard.lasting().is_default() && !guard.is_default());
        let skips = Guard { on_collapse: OnCollapse::Skip, ..guard };
        assert_eq!(skips.lasting(), Guard { compare_every: 100, ..skips });
    }

    #[test]
    fn values_out_of_range_are_named() {
        let bad = |guard: Guard| guard.check().unwrap_err().to_string();
        assert!(bad(Guard { gradient_factor: 0.5, ..Guard::default() }).contains("guard.gradient_factor"));
        assert!(bad(Guard { gradient_factor: f64::NAN, ..Guard::default() }).contains("guard.gradient_factor"));
        assert!(bad(Guard { rate_factor: 0.0, ..Guard::default() }).contains("guard.rate_factor"));
        assert!(bad(Guard { max_rollbacks: 1001, ..Guard::default() }).contains("guard.max_rollbacks"));
        assert!(Guard { gradient_factor: 0.0, ..Guard::default() }.check().is_ok());
    }
}
