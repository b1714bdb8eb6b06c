//! Averages of the weights over training, kept beside the raw weights.

use serde::{Deserialize, Serialize};

/// `[averages]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Averages {
    /// A moving average over steps; none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<Ema>,
    /// The plain mean over epochs (stochastic weight averaging, Izmailov et al. 2018); none without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swa: Option<Swa>,
}

/// `averages.ema`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// What is left of the average after a step; the rest is the new weights.
    pub decay: f64,
    /// The epoch, from 0, from which it averages; before that it is the weights.
    #[serde(default)]
    pub from_epoch: u64,
}

/// `averages.swa`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swa {
    /// The first epoch, from 0, whose weights count.
    pub from_epoch: u64,
}
