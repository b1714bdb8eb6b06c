//! Accuracy under attack: every image once, whatever the number of ranks, and however often the evaluation was interrupted.
//!
//! A suite becomes a list of rounds, one for each attack and target class. Before each round, the images that it attacks are
//! dealt to the ranks anew. Batches have one fixed size, or one that gives the same bits (`rows`), and are filled up with
//! copies of their first image, whose results are dropped. So an image's outcome does not depend on the other images, and
//! rounds towards several target classes share batches where few images are left (`sharing`).
//!
//! Uses `system`, `config`, `model`, `method`, `step` and `weights`; knows nothing of a run. Read `classifier`, `round`,
//! `outcomes` and `engine` in this order, then [`finished`] and [`examples`].

mod adaptive;
mod attacked;
mod batch;
mod classifier;
mod engine;
pub mod examples;
pub mod finished;
mod journal;
mod load;
mod outcomes;
mod pace;
mod precision;
pub mod request;
mod results;
mod round;
mod rows;
mod sanity_checks;
mod sharing;
mod stoppable;

pub use self::classifier::Classifier;
pub use self::engine::{Engine, Records, Standing};
pub use self::journal::{Journal, digest};
pub use self::load::NetworkSpec;
pub use self::outcomes::{Accuracy, Decided, Outcomes, RoundStep, SanityCounts};
pub use self::results::{Evaluation, Seconds};
pub use self::round::Round;
pub use self::sanity_checks::warnings;

#[cfg(test)]
mod tests;
