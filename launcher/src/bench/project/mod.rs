//! `iad-launch bench project`: the step of a run on another cluster, from counted arithmetic and stated links.
//!
//! Read `cluster`, `simulate`, `step_model`, `measured`, then `projection`.

mod cluster;
mod measured;
mod projection;
mod simulate;
mod step_model;

pub(crate) use self::cluster::Cluster;
pub(super) use self::measured::{MeasuredStep, played_as_measured};
pub(crate) use self::projection::run;
pub(crate) use self::simulate::play;
pub(crate) use self::step_model::{Learners, StepModel, learners};
