//! `iad-launch plan CONFIG`: what a run would need before it starts.
//!
//! It uses `command`, `console`, `draw`, `start`, `train` (its seeds), `machine` and `bench` (its model of a step). Read `images` (sizes of the data),
//! `numbers` (counts), `launches`, `time`, `warn`, `planned`, `show`, then `run`.

mod images;
mod launches;
mod numbers;
mod planned;
mod run;
mod show;
mod time;
mod warn;

pub(crate) use self::run::{run, seconds};
