//! `iad-launch bench`: measurements of this machine, and projections for other machines.
//!
//! It uses `command`, `console`, `draw` and `start`. Read `output`, then `step`, `save`, `comm`, `project` and `scaling`.

pub(crate) mod comm;
mod output;
pub(crate) mod project;
pub(crate) mod save;
pub(crate) mod scaling;
pub(crate) mod step;
