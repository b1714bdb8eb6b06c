//! `iad-launch plan CONFIG`.

use std::path::PathBuf;

use clap::Args;
use trainer::config::Override;

use super::shape::shape;

/// `iad-launch plan CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Configuration of the run; images and teachers need not exist.
    pub(crate) config: PathBuf,
    /// Override a configuration key, as in --set optimizer.lr=0.05; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Also add up the runs of these seeds, as in 1,2,3 (default: `seeds` of the configuration, else one run).
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    pub(crate) seeds: Vec<u64>,
    /// Number of ranks (default: those that the MPI launcher has started, else 1).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ranks: Option<u16>,
    /// Project the time to this GPU, h100 or a100, or to the cluster that a file describes, as in configs/clusters (default:
    /// a measurement of some seconds on this machine).
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Option<String>,
    /// Image shape where the images are missing, as in 3x32x32 (default: the published one of the data set).
    #[arg(long, value_name = "CxHxW", value_parser = shape)]
    pub(crate) image: Option<[usize; 3]>,
    /// Number of classes where the images are missing.
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Number of training images where the images are missing.
    #[arg(long, value_name = "N")]
    pub(crate) images: Option<u64>,
    /// Print the plan, with the resolved configuration, as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
