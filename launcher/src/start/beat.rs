//! What a rank says of itself to its launcher and to rank 0, and what follows from it when a run hangs.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use trainer::system::Doing;

use super::watchdog::exceeded;

/// A rank that has not been heard for so long does not answer.
pub(super) const SILENT: Duration = Duration::from_secs(3);

/// The longest datagram.
pub(super) const LONGEST: usize = 4096;

/// What a rank says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Beat {
    pub(super) rank: usize,
    pub(super) host: String,
    /// What it is doing, in words.
    pub(super) doing: String,
    /// What it did before.
    pub(super) before: Vec<String>,
    /// Whether there is something to lose.
    pub(super) begun: bool,
    /// Whether it waits for other ranks.
    pub(super) waits: bool,
    /// The budget in seconds that it exceeds, if it does.
    pub(super) budget: Option<f64>,
    /// Seconds it may need to answer a request to stop.
    pub(super) patience: f64,
    /// Its exit code, when all ranks have agreed on one.
    pub(super) code: Option<u8>,
}

impl Beat {
    pub(super) fn of(rank: usize, doing: &Doing, code: Option<u8>) -> Self {
        Self {
            rank,
            host: comm::host_name(),
            doing: doing.to_string(),
            before: doing.before.clone(),
            begun: doing.begun,
            waits: doing.waits_in.is_some(),
            budget: exceeded(doing).map(|budget| budget.as_secs_f64()),
            patience: patience(doing).as_secs_f64(),
            code,
        }
    }

    /// Its datagram, in the run that `word` marks.
    pub(super) fn encode(&self, word: &str) -> String {
        format!("{word}{}", serde_json::to_string(self).unwrap_or_default())
    }

    /// What `text` says, if it comes from the run that `word` marks.
    pub(super) fn decode(word: &str, text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text.strip_prefix(word.as_bytes())?).ok()
    }
}

/// Some steps or batches at the usual pace, but no less than half a minute.
fn patience(doing: &Doing) -> Duration {
    const LEAST: Duration = Duration::from_secs(30);
    (doing.usually.unwrap_or_default() * 4).max(LEAST)
}

/// The report on a run that hangs: the cause, then a line for each rank. `ranks` are what each said last, and how long ago.
pub(super) fn report(cause: &str, ranks: &[(Beat, Duration)]) -> String {
    let mut text = format!("{cause}; everything ends, and the same command resumes");
    for (beat, ago) in ranks {
        text += &format!("\n  rank {} on {}: {}", beat.rank, beat.host, beat.doing);
        if ago.as_secs() > 2 {
            text += &format!("; heard {} s ago", ago.as_secs());
        }
        if !beat.before.is_empty() {
            text += &format!("; before: {}", beat.before.join("; "));
        }
    }
    text
}

/// Why a run whose ranks are `ranks` hangs, if it does. Of the ranks that exceed their budgets, those are named that wait for
/// nobody; else any that wait for nobody, for the culprit may be in a stage that has more time than the one in which the others
/// wait for it.
pub(super) fn late(ranks: &[(Beat, Duration)]) -> Option<String> {
    let all = || ranks.iter().map(|(beat, _)| beat);
    let budget = all().filter_map(|beat| beat.budget).reduce(f64::min)?;
    let busy = || all().filter(|beat| !beat.waits);
    let exceeding: Vec<&Beat> = busy().filter(|beat| beat.budget.is_some()).collect();
    let found = [exceeding, busy().collect(), all().filter(|beat| beat.budget.is_some()).collect()];
    let found = found.into_iter().find(|named| !named.is_empty()).unwrap_or_default();
    let named: Vec<String> = found.into_iter().map(named).collect();
    Some(format!("{} does not go on: more than {budget:.0} s", named.join(", ")))
}

/// The same of a rank that knows of no other.
pub(super) fn does_not_go_on(beat: &Beat, budget: Duration) -> String {
    format!("{} does not go on: more than {:.0} s", named(beat), budget.as_secs_f64())
}

fn named(beat: &Beat) -> String {
    format!("rank {} on {} ({})", beat.rank, beat.host, beat.doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(rank: usize, waits: bool, budget: Option<f64>) -> (Beat, Duration) {
        let doing = format!("step 7, phase {}, for 9 s", if waits { "communication" } else { "attack" });
        let host = "node".to_string();
        let before = vec!["step 6, 0.100 s".to_string()];
        let beat = Beat { rank, host, doing, before, begun: true, waits, budget, patience: 30.0, code: None };
        (beat, Duration::from_secs(rank as u64 * 5))
    }

    #[test]
    fn the_rank_that_waits_for_nobody_is_named() {
        assert_eq!(late(&[beat(0, true, None), beat(1, false, None)]), None);
        let ranks = [beat(0, true, Some(8.0)), beat(1, false, None), beat(2, true, Some(8.0))];
        let cause = late(&ranks).unwrap();
        assert_eq!(cause, "rank 1 on node (step 7, phase attack, for 9 s) does not go on: more than 8 s");
        let text = report(&cause, &ranks);
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(
            text.contains("rank 1 on node: step 7, phase attack, for 9 s; heard 5 s ago; before: step 6"),
            "{text}"
        );
    }
}
