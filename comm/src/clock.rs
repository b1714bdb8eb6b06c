//! How far apart the clocks of two ranks are, by messages there and back.

use anyhow::Result;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, Destination as _, Source as _};

/// What a rank's clock is to the leader's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alignment {
    /// Seconds to add to this rank's clock.
    pub offset: f64,
    /// How many seconds the sum may be off by: half of the shortest way there and back.
    pub error: f64,
}

impl Alignment {
    /// The leader's own.
    pub const NONE: Self = Self { offset: 0.0, error: 0.0 };
}

/// Messages there and back of which the fastest counts: it waited least on its way.
const MESSAGES: usize = 64;

/// Compares `clock` (seconds) of every rank with the leader's, one rank after the other.
pub(crate) fn align(world: &SimpleCommunicator, is_leader: bool, clock: &dyn Fn() -> f64) -> Result<Alignment> {
    let mut alignment = Alignment::NONE;
    for rank in 1..world.size() {
        if is_leader {
            let other = world.process_at_rank(rank);
            for _ in 0..MESSAGES {
                other.receive::<f64>();
                other.send(&clock());
            }
        } else if world.rank() == rank {
            let leader = world.process_at_rank(0);
            let answers = (0..MESSAGES).map(|_| {
                let sent = clock();
                leader.send(&sent);
                let (theirs, _) = leader.receive::<f64>();
                let received = clock();
                Alignment { offset: theirs - (sent + received) / 2.0, error: (received - sent) / 2.0 }
            });
            let best = answers.min_by(|one, other| one.error.total_cmp(&other.error));
            alignment = best.unwrap_or(Alignment::NONE);
        }
    }
    Ok(alignment)
}
