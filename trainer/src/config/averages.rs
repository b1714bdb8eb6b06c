//! Averages of the weights over training, kept beside the raw weights.

use serde::{Deserialize, Serialize};

/// `[averages]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Averages {
    /// A moving average over steps; off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<Ema>,
    /// The plain mean over epochs (stochastic weight averaging, Izmailov et al. 2018); off by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swa: Option<Swa>,
}

/// `averages.ema`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ema {
    /// The weight of the old average in each step; the rest is the weight of the new parameters.
    pub decay: f64,
    /// The first epoch, from 0, of averaging. Until then the average equals the parameters.
    #[serde(default)]
    pub from_epoch: u64,
    /// The fraction of the run in which the average equals the parameters. The decay then rises as (1 + d) / (10 + d)
    /// in the d-th step after it, up to `decay`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<f64>,
    /// The running statistics of batch norm in the average.
    #[serde(default, skip_serializing_if = "EmaStatistics::is_average")]
    pub statistics: EmaStatistics,
}

/// The running statistics of an average.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmaStatistics {
    /// Averaged like the parameters.
    #[default]
    Average,
    /// The student's own, as in the recipe of Gowal et al. and Wang et al. 2023.
    Student,
}

impl EmaStatistics {
    fn is_average(&self) -> bool {
        *self == Self::Average
    }
}

/// `averages.swa`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swa {
    /// The first epoch, from 0, whose weights enter the mean.
    pub from_epoch: u64,
}
