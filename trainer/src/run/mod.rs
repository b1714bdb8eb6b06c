//! A whole run: epochs, evaluation, checkpoints. World size 1 is just N = 1.
//!
//! Uses every folder but `bench`. Read `training`, the training loop, first. Then `requests`, `settle`,
//! `saves`, `epoch_end` and `finish`, which are its parts, and [`folder`], [`prepare`], [`state`] and [`events`].

mod active;
pub mod averages;
pub mod changes;
mod checkpoints;
mod clock;
mod container;
mod context;
pub mod cost;
pub mod desync;
mod effort;
mod epoch_end;
pub mod events;
mod extra;
mod fingerprint;
mod finish;
pub mod folder;
#[cfg(test)]
mod fuzz;
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
pub mod retention;
mod rollback;
mod saves;
mod settle;
pub mod state;
mod teacher;
mod totals;
pub mod trace;
mod training;
pub mod writer;

pub use self::active::Ending;
pub use self::context::{RunContext, Stop};
pub use self::training::train;
