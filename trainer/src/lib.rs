//! Adversarial distillation on one rank: networks, attacks, losses, the step, the run.
//!
//! Start with [`step`], then [`run`].

pub mod agreement;
pub mod attack;
pub mod averages;
pub mod batch;
pub mod bench;
pub mod checkpoint;
mod clock;
pub mod config;
pub mod cost;
mod effort;
pub mod evaluate;
pub mod evaluation;
#[cfg(test)]
mod fixtures;
pub mod folder;
pub mod foreign;
pub mod gradients;
pub mod host;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod observe;
pub mod optimizer;
mod precision;
pub mod prepare;
pub mod run;
pub mod runner;
pub mod schedule;
pub mod state;
pub mod statistics;
pub mod step;
pub mod timeline;
pub mod trace;
pub mod views;
