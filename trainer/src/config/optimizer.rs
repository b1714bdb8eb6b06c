//! `[optimizer]`: SGD or AdamW, and the learning rate. Options have the names of `torch.optim`.

use serde::{Deserialize, Serialize};

/// `[optimizer]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule of the update.
    #[serde(default, skip_serializing_if = "OptimizerKind::is_sgd")]
    pub kind: OptimizerKind,
    /// The base learning rate.
    pub lr: f64,
    /// The policy of the learning rate.
    pub lr_policy: LrPolicy,
    /// How the learning rate scales with the global batch.
    #[serde(default)]
    pub lr_scale: LrScale,
    /// The global batch size that `lr` is meant for.
    #[serde(default = "default_base_batch")]
    pub lr_base_batch: usize,
    /// Epochs of warm-up, in which the rate rises step by step; 0 for none.
    #[serde(default)]
    pub lr_warmup_epochs: u64,
    /// The momentum of SGD.
    #[serde(default = "default_momentum")]
    pub momentum: f64,
    /// Whether SGD takes Nesterov's step: the gradient plus the momentum after it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nesterov: bool,
    /// AdamW's decays of the mean gradient and of the mean squared gradient.
    #[serde(default = "default_betas", skip_serializing_if = "are_default_betas")]
    pub betas: [f64; 2],
    /// The term that AdamW adds to the root of the mean squared gradient.
    #[serde(default = "default_eps", skip_serializing_if = "is_default_eps")]
    pub eps: f64,
    /// The weight decay. SGD adds this multiple of a parameter to its gradient; AdamW shrinks the parameter by this
    /// multiple of the learning rate.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// The parameters without weight decay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_weight_decay: Vec<Undecayed>,
    /// The largest 2-norm of the gradient over all parameters and ranks; a longer gradient is scaled to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_grad_norm: Option<f64>,
}

/// The rule of the update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    #[default]
    Sgd,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    AdamW,
}

impl OptimizerKind {
    fn is_sgd(&self) -> bool {
        *self == Self::Sgd
    }
}

/// A sort of parameters that weight decay can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undecayed {
    /// Scales and shifts of batch norm.
    BatchNorm,
    /// Biases of convolutions and linear layers.
    Bias,
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn are_default_betas(betas: &[f64; 2]) -> bool {
    *betas == default_betas()
}

fn default_eps() -> f64 {
    1e-8
}

fn is_default_eps(eps: &f64) -> bool {
    *eps == default_eps()
}

fn default_base_batch() -> usize {
    128
}

fn default_momentum() -> f64 {
    0.9
}

fn default_weight_decay() -> f64 {
    2e-4
}

/// The learning rate over a run. In TOML: `"constant"`, `"reference"`, `"paper"`, or a table such as `{ step = { at =
/// [100, 150], factor = 0.1 } }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LrPolicy {
    /// Constant.
    Constant,
    /// A tenth from epoch 100 on, as in the reference code: its second drop at 150 never takes effect.
    Reference,
    /// A tenth from epoch 100 and a hundredth from epoch 150 on, as in the paper.
    Paper,
    /// Multiplied by `factor` at each epoch of `at`.
    Step {
        /// The epochs, counted from 0, ascending.
        at: Vec<u64>,
        /// The multiplier of each drop.
        factor: f64,
    },
    /// Linear from `start * lr` up to `lr` at the fraction `peak` of the run, then linear down to `end * lr`.
    OneCycle {
        /// The first factor.
        start: f64,
        /// The fraction of the run at which the peak lies.
        peak: f64,
        /// The last factor.
        end: f64,
    },
    /// Half a cosine from `lr` at the end of the warm-up to 0 at the end of the run, step by step.
    Cosine,
    /// `lr` for so many epochs; then, epoch by epoch, lr times half a cosine down to 0 in the last epoch, times exp(-decay t^2),
    /// with t the share of these epochs that has begun (CIARD).
    LateCosine(LateCosine),
    /// A triangle that repeats, as in PyTorch's `CyclicLR`: from `base * lr` up to `lr`, then down again.
    Cyclic {
        /// The lowest factor.
        base: f64,
        /// The steps of the rise.
        up: u64,
        /// The steps of the fall.
        down: u64,
    },
    /// PyTorch's `OneCycleLR`.
    OneCycleCosine(OneCycleCosine),
}

impl LrPolicy {
    /// Whether the factor of a step depends on the number of epochs of the run.
    pub fn follows_the_length_of_the_run(&self) -> bool {
        match self {
            Self::OneCycle { .. } | Self::Cosine | Self::LateCosine(_) | Self::OneCycleCosine(_) => true,
            Self::Constant | Self::Reference | Self::Paper | Self::Step { .. } | Self::Cyclic { .. } => false,
        }
    }
}

/// A rate that falls by half a cosine from an epoch on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LateCosine {
    /// The epochs of the whole rate.
    pub from: u64,
    /// The further decay.
    pub decay: f64,
}

/// PyTorch's `OneCycleLR`: a cosine from `lr / div_factor` to `lr`, then one to `lr / div_factor / final_div_factor`.
/// Momentum falls from `max_momentum` to `base_momentum` while the rate rises, and rises again while the rate falls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OneCycleCosine {
    /// The fraction of the run in which the rate rises.
    pub pct_start: f64,
    /// The peak over the first rate.
    pub div_factor: f64,
    /// The first rate over the last.
    pub final_div_factor: f64,
    /// When the rate changes.
    pub per: Pace,
    /// Whether the momentum changes too. It then takes the place of `optimizer.momentum`.
    pub cycle_momentum: bool,
    /// The momentum at the peak.
    pub base_momentum: f64,
    /// The momentum at both ends.
    pub max_momentum: f64,
}

impl Default for OneCycleCosine {
    fn default() -> Self {
        Self {
            pct_start: 0.3,
            div_factor: 25.0,
            final_div_factor: 1e4,
            per: Pace::Step,
            cycle_momentum: true,
            base_momentum: 0.85,
            max_momentum: 0.95,
        }
    }
}

/// When a policy changes the rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// With each step.
    #[default]
    Step,
    /// With each epoch.
    Epoch,
}

/// How the learning rate scales with the global batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScale {
    /// None.
    #[default]
    None,
    /// Linearly (Goyal et al. 2017).
    Linear,
    /// With the root of the batch, which keeps the variance of a step (Krizhevsky 2014).
    Sqrt,
}
