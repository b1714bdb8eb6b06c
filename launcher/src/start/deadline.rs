//! When a command must have ended: `--time-limit`, or the end of the scheduler's job.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trainer::system::{Activity, Stage};

use super::environment::{DEADLINE, variable};
use crate::command::LaunchArgs;

/// SLURM's end of the job, in seconds since 1970.
const SLURM_END: &str = "SLURM_JOB_END_TIME";

/// What is kept free beside steps and saving: for loading and leaving, and for a scheduler that is early.
const SPARE: Duration = Duration::from_secs(2);
const SPARE_OF_SCHEDULER: Duration = Duration::from_secs(30);

/// When the command must have ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Deadline {
    ends: SystemTime,
}

impl Deadline {
    /// The earliest that applies. The time limit counts from now, unless the launcher has told its ranks when it ends.
    pub(super) fn of(launch: &LaunchArgs) -> Option<Self> {
        Self::earliest(SystemTime::now(), launch.time_limit, variable)
    }

    fn earliest(now: SystemTime, limit: Option<Duration>, variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let moment = |name: &str| {
            let seconds = variable(name)?.trim().parse::<f64>().ok()?;
            UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
        };
        let told = moment(DEADLINE);
        // The launcher has seen SLURM's time too.
        let scheduler = || moment(SLURM_END).map(|ends| ends - SPARE_OF_SCHEDULER);
        let all =
            if told.is_some() { [told, None] } else { [limit.and_then(|limit| now.checked_add(limit)), scheduler()] };
        all.into_iter().flatten().min().map(|ends| Self { ends })
    }

    /// What tells the ranks.
    pub(super) fn variable(self) -> (&'static str, String) {
        let since = self.ends.duration_since(UNIX_EPOCH).unwrap_or_default();
        (DEADLINE, format!("{:.3}", since.as_secs_f64()))
    }

    /// Whether a request to stop must be made now to be answered in time: three steps or batches and two saves at their usual
    /// pace from now.
    pub(super) fn is_near(self, activity: &Activity) -> bool {
        let usually = |stage| activity.usually(stage).unwrap_or_default();
        let work = usually(Stage::Step).max(usually(Stage::Evaluation)) * 3 + usually(Stage::Save) * 2;
        SystemTime::now() + work + SPARE >= self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn ends(limit: Option<u64>, variables: &[(&str, &str)]) -> Option<u64> {
        let variable = |name: &str| Some(variables.iter().find(|(other, _)| *other == name)?.1.to_string());
        let found = Deadline::earliest(UNIX_EPOCH + seconds(1000), limit.map(seconds), variable);
        found.map(|deadline| deadline.ends.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn the_earliest_end_counts() {
        assert_eq!(ends(None, &[]), None);
        assert_eq!(ends(Some(60), &[]), Some(1060));
        assert_eq!(ends(None, &[("SLURM_JOB_END_TIME", "5000")]), Some(4970));
        assert_eq!(ends(Some(60), &[("SLURM_JOB_END_TIME", "5000")]), Some(1060));
        assert_eq!(ends(Some(60), &[("IAD_DEADLINE", "1012.500")]), Some(1012), "the launcher began earlier");
        assert_eq!(ends(None, &[("SLURM_JOB_END_TIME", "soon")]), None);
    }

    #[test]
    fn slow_steps_are_stopped_earlier() {
        let (deadline, activity) = (Deadline { ends: SystemTime::now() + seconds(3) }, Activity::default());
        assert!(!deadline.is_near(&activity));
        for step in 1..4 {
            activity.begin(Stage::Step, step);
            std::thread::sleep(Duration::from_millis(500));
        }
        assert!(deadline.is_near(&activity), "three steps of 0.5 s and 2 s are more than 3 s");
    }
}
