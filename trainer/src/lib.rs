//! Adversarial distillation on one rank: networks, attacks, losses, the step, the run.
//!
//! Nine floors. A file may use its own floor and those above it in the list below, never those beneath. Start with
//! [`step`], then [`run`].

pub mod system;

pub mod config;

pub mod model;

pub mod method;

pub mod step;

pub mod weights;

pub mod evaluate;

pub mod run;

pub mod bench;

#[cfg(test)]
mod fixtures;
