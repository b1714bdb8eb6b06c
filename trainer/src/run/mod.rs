//! A whole run: epochs, evaluation, checkpoints. World size 1 is just N = 1.
//!
//! Uses every folder but `bench`. Read `training`, the training loop, first. Then `requests`, `settle`,
//! `epoch_end` and `finish`, which are its parts, and [`folder`], [`prepare`], [`state`] and [`events`].

mod active;
pub mod averages;
pub mod changes;
mod checkpoints;
mod clock;
mod context;
pub mod cost;
mod desync;
mod effort;
mod epoch_end;
pub mod events;
mod fingerprint;
mod finish;
pub mod folder;
mod guards;
pub mod initial;
mod inputs;
pub mod metrics;
pub mod networks;
mod normalisation;
mod offence;
mod pending;
pub mod prepare;
pub mod replay;
mod requests;
mod rollback;
mod settle;
pub mod state;
mod teacher;
mod totals;
pub mod trace;
mod training;

pub use self::active::Ending;
pub use self::context::{RunContext, Stop};
pub use self::training::train;
