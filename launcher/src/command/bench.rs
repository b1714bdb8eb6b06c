//! `iad-launch bench ...`: for the programs under benches/, and not shown in the help.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use trainer::config::Override;

use super::{Where, weigh::shape};

/// `iad-launch bench ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Time the step of a configuration on images that are made up.
    Step(BenchStep),
}

/// `iad-launch bench step CONFIG`
#[derive(Debug, Args)]
pub(crate) struct BenchStep {
    /// The configuration; its data and its teachers' files are not looked at.
    pub(crate) config: PathBuf,
    /// Change a key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// The shape of the images.
    #[arg(long, value_name = "CxHxW", value_parser = shape, default_value = "3x32x32")]
    pub(crate) image: [usize; 3],
    /// The number of classes.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub(crate) classes: usize,
    /// The epoch whose terms count.
    #[arg(long, value_name = "EPOCH", default_value_t = 0)]
    pub(crate) epoch: u64,
    /// Take so many steps and end; without it, one for each line of standard input (on one rank).
    #[arg(long, value_name = "COUNT")]
    pub(crate) steps: Option<usize>,
    /// First write networks and images to this safetensors file.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Time an evaluation attack on the student (PGD-20, evaluation mode) instead, with batch norm folded or not.
    #[arg(long, value_name = "FOLD")]
    pub(crate) evaluate: Option<bool>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) place: Where,
}
