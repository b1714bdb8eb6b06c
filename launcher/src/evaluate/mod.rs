//! `iad-launch eval`: a run's network, or a file of weights, under attack on the test images.
//!
//! It uses `exit`, `command`, `console`, `start` and `report`. Read `choose`, `plan`, then `run`.

mod choose;
mod plan;
mod run;

pub(crate) use self::choose::choose_weights;
pub(crate) use self::run::run;
