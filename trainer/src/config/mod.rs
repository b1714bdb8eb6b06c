//! The configuration of a run: one complete TOML file, as plain data. It computes nothing and names no tensor and no
//! communicator.
//!
//! Uses `system`. Read [`RunConfig`] first: every table of the file is a field of it and has a file of its own here. Then
//! `read` (presets, overrides, messages) and `check` (the values that are allowed).

mod architecture;
mod attack;
mod averages;
mod awp;
mod batch;
mod batch_norm;
mod check;
mod check_around_step;
mod check_augment;
mod check_learners;
mod check_method;
mod check_optimizer;
mod checkpoint;
mod class_matching;
mod comm;
mod data;
mod divergence;
mod evaluation;
mod explain;
mod grad_align;
mod guard;
mod identity;
mod keys;
mod learner;
mod loss;
mod metrics;
mod norm;
mod normalize;
mod optimizer;
mod overrides;
mod pixels;
mod positions;
mod precision;
mod preset;
mod protocol;
pub(crate) mod range;
mod read;
mod remembered;
mod run_config;
mod single_step;
mod student;
mod suite;
mod target;
mod warnings;
mod watchdog;

pub use self::architecture::{Activation, Architecture, RESNET_DEPTHS};
pub use self::attack::{AttackConfig, AttackKind, Start};
pub use self::averages::{Averages, Ema, EmaStatistics, Swa};
pub use self::awp::Awp;
pub use self::batch::{BatchSize, Per};
pub use self::batch_norm::{AcrossRanks, BatchNormConfig, Compat, Mode};
pub use self::checkpoint::CheckpointConfig;
pub use self::class_matching::ClassMatching;
pub use self::comm::{Backend, Comm, GradientDtype};
pub use self::data::{Data, ExtraData, Reading};
pub use self::divergence::Divergence;
pub use self::evaluation::{AutoAttack, Evaluation, Selection};
pub use self::grad_align::GradAlign;
pub use self::guard::{Guard, OnCollapse};
pub use self::keys::{Key, keys};
pub use self::learner::Learner;
pub use self::loss::{EMA, LossConfig, Only, Ramp, STUDENT, SampleWeight, Term, Trust, Uncertainty};
pub use self::metrics::{Diagnostics, MetricsConfig};
pub use self::norm::Norm;
pub use self::normalize::Normalize;
pub use self::optimizer::{
    LateCosine, LrPolicy, LrScale, OneCycleCosine, OptimizerConfig, OptimizerKind, Pace, Undecayed,
};
pub use self::overrides::Override;
pub use self::pixels::Pixels;
pub use self::precision::{Dtype, Fused, Named, Precision};
pub use self::preset::names as preset_names;
pub use self::protocol::Protocol;
pub use self::remembered::{Balance, ClassMeans, ClassWeights, Rectify};
pub use self::run_config::RunConfig;
pub use self::student::{Student, Teacher};
pub use self::suite::{Listed, Method, Suite};
pub use self::target::{Images, Prediction, Target};
pub use self::watchdog::Watchdog;
