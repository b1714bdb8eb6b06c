//! Pauses for tests of what a trace shows.

use std::time::Duration;

use super::Phase;

/// A pause that a test puts into a phase: `IAD_TEST_DELAY=RANK,PHASE,LAP,MILLISECONDS`.
pub(super) struct Delay {
    pub(super) phase: Phase,
    pub(super) lap: u64,
    pub(super) length: Duration,
}

impl Delay {
    /// What the environment asks of this rank.
    pub(super) fn of_environment(rank: usize) -> Option<Self> {
        let text = std::env::var("IAD_TEST_DELAY").ok()?;
        let [delayed, phase, lap, milliseconds] = text.split(',').collect::<Vec<_>>().try_into().ok()?;
        let phase = Phase::ALL.into_iter().find(|known| known.name() == phase)?;
        let length = Duration::from_millis(milliseconds.parse().ok()?);
        (delayed.parse() == Ok(rank)).then_some(Self { phase, lap: lap.parse().ok()?, length })
    }
}
