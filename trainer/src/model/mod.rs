//! Networks: classifiers of images in [0, 1]. Attacks, losses and ranks are unknown here.
//!
//! Uses `system` and `config`. Read `layers`, `batch_norm`, `blocks` and `builder` from the bottom up, then one network,
//! for instance `resnet`, then [`Model`].

mod batch_norm;
mod blocks;
mod builder;
mod classifier;
mod convnet;
mod deepmind;
mod flat;
mod layers;
mod mobilenet_v2;
mod network;
mod normalization;
mod preact_resnet;
mod resnet;
mod spec;
mod wide_resnet;

pub use self::batch_norm::OverRanks;
pub use self::classifier::{Model, outline};
pub use self::flat::{cut, flatten, piece};
pub use self::layers::Named;
pub use self::spec::ModelSpec;
pub use crate::config::Mode;
