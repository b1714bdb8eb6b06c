//! `iad-launch train`: a run, and the teachers it needs.
//!
//! It uses `exit`, `command`, `console`, `draw`, `start` and `report`. Read `jobs`, `seeds` and `announce`, then `command` and
//! `replay`.

mod announce;
mod command;
mod jobs;
mod replay;
mod seeds;

pub(crate) use self::command::run;
pub(crate) use self::jobs::{Job, TrainOptions, check, folders, train_all};
pub(crate) use self::replay::run_again;
pub(crate) use self::seeds::{refuse_run, seeds_of};
