//! Accuracy under attack: every image once, whatever the number of ranks, and however often the evaluation was interrupted.
//!
//! A suite comes to rounds, one for each attack and class attacked towards. Before each round the images that it is for are
//! dealt to the ranks anew. Batches have one fixed size, filled up with copies of the first image whose results are dropped, so
//! that an image's outcome does not depend on its neighbours.

mod distrust;
mod engine;
mod journal;
mod outcomes;
mod round;
mod suite;

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use comm::Communicator;
use datasets::Source;
use serde::Serialize;

pub use self::distrust::{Seen, warnings};
pub use self::engine::{Engine, Keeping, Standing};
pub use self::journal::{Journal, digest};
pub use self::outcomes::{Accuracy, Decided, Outcomes, Step};
pub use self::round::Round;
pub use self::suite::{Listed, Method, Suite};
use crate::config::{AutoAttack, Evaluation, RunConfig};
use crate::model::Model;

/// What an accuracy depends on besides the images, the network and the attack.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Protocol {
    /// Radius of the ball.
    pub eps: f64,
    /// Length of a step of attacks with several.
    pub step: f64,
    /// Rows of a batch.
    pub batch: usize,
    /// The seed of everything random.
    pub seed: u64,
    /// The lengths of AutoAttack's searches.
    pub autoattack: AutoAttack,
}

impl Protocol {
    /// The protocol a configuration states.
    pub fn of(config: &RunConfig) -> Self {
        Self::stated(&config.evaluation, config.seed)
    }

    /// The protocol of an `[evaluation]` table.
    pub fn stated(evaluation: &Evaluation, seed: u64) -> Self {
        let Evaluation { eps, step, batch, autoattack, .. } = evaluation;
        Self { eps: eps.0, step: step.0, batch: *batch, seed, autoattack: *autoattack }
    }
}

impl Default for Protocol {
    fn default() -> Self {
        Self::stated(&Evaluation::default(), 0)
    }
}

/// Attacks every image of `source` by the whole suite, spread over the ranks. Returns nothing if `stop` was raised on any rank.
/// `progress` hears how far it is.
///
/// # Errors
/// A failure to read images or of the transport; or a count of images that is not that of the source.
pub fn evaluate(
    model: &Model,
    source: &dyn Source,
    suite: &Suite,
    protocol: &Protocol,
    ranks: &dyn Communicator,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&Standing),
) -> Result<Option<Vec<Accuracy>>> {
    let engine = Engine { model, source, suite, protocol, ranks, stop, distrust: false };
    let outcomes = engine.run(&mut Keeping::default(), progress)?;
    outcomes.map(|outcomes| outcomes.accuracies()).transpose()
}

#[cfg(test)]
mod tests;
