//! The command line. No option mirrors a configuration key: `--set` changes those.
//!
//! It uses nothing of this crate and only parses; `main` dispatches. Read `line`, then the subcommand of interest.

mod bench;
mod data;
mod doctor;
mod eval;
mod init;
mod launch;
mod line;
mod metrics;
mod paper;
mod plan;
#[cfg(test)]
mod quoted;
mod replay;
mod report;
mod runs;
mod sbatch;
mod settings;
mod shape;
#[cfg(test)]
mod shown;
mod train;
mod weights;

pub(crate) use self::bench::{Bench, BenchComm, BenchSave, BenchStep, Project, Scaling, ScalingMode};
pub(crate) use self::data::{Data, LayoutOptions};
pub(crate) use self::doctor::Doctor;
pub(crate) use self::eval::Eval;
pub(crate) use self::init::Init;
pub(crate) use self::launch::LaunchArgs;
pub(crate) use self::line::{Command, CommandLine, with_implied_train};
pub(crate) use self::metrics::Metrics;
pub(crate) use self::paper::{Paper, Part};
pub(crate) use self::plan::Plan;
pub(crate) use self::replay::Replay;
pub(crate) use self::report::{Form, Report};
pub(crate) use self::runs::{Compare, Runs};
pub(crate) use self::sbatch::{Sbatch, Scheduler};
pub(crate) use self::settings::{Completions, Config, Man};
pub(crate) use self::train::Train;
pub(crate) use self::weights::{ImportWeights, Weigh, Weights};
