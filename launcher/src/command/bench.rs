//! `iad-launch bench ...`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use trainer::config::{Backend, Override};

use super::Where;
use super::weigh::shape;

/// `iad-launch bench ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Time the step of a configuration on images that are made up; a line of JSON for each.
    Step(BenchStep),
    /// Time sums over the ranks, in the conventions of nccl-tests.
    Comm(Sums),
    /// Time the step of a configuration on growing numbers of ranks.
    Scaling(Scaling),
    /// Foretell a run on a large cluster, by playing its step event by event.
    Project(Project),
}

/// A step on images that are made up.
#[derive(Debug, Args)]
pub(crate) struct StepOf {
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
}

/// `iad-launch bench step CONFIG`
#[derive(Debug, Args)]
pub(crate) struct BenchStep {
    /// The step.
    #[command(flatten)]
    pub(crate) of: StepOf,
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

/// `iad-launch bench comm`
#[derive(Debug, Args)]
pub(crate) struct Sums {
    /// The smallest message in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 8)]
    pub(crate) from: u64,
    /// The largest message in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 28, value_parser = clap::value_parser!(u64).range(8..=1 << 34))]
    pub(crate) to: u64,
    /// The factor from one message to the next.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=1024))]
    pub(crate) factor: u64,
    /// Time each message for about this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.3)]
    pub(crate) seconds: f64,
    /// Also time messages as large as the gradients of this configuration's student; may be repeated.
    #[arg(long, value_name = "CONFIG.toml")]
    pub(crate) gradients: Vec<PathBuf>,
    /// Write the measurements to a new file.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
    /// The transport: auto, nccl or mpi, as comm.backend.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = backend)]
    pub(crate) backend: Backend,
    /// For tests of the program alone: several ranks may share a GPU, as comm.share_gpus.
    #[arg(long)]
    pub(crate) share_gpus: bool,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) place: Where,
}

fn backend(text: &str) -> Result<Backend, String> {
    match text {
        "auto" => Ok(Backend::Auto),
        "nccl" => Ok(Backend::Nccl),
        "mpi" => Ok(Backend::Mpi),
        _ => Err("expected auto, nccl or mpi".into()),
    }
}

/// How a step grows with the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Each rank has batch.size images.
    Weak,
    /// All ranks together have.
    Strong,
    /// Both, one after the other.
    Both,
}

impl Mode {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Weak => "weak",
            Mode::Strong => "strong",
            Mode::Both => "both",
        }
    }
}

/// `iad-launch bench scaling CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Scaling {
    /// The step.
    #[command(flatten)]
    pub(crate) of: StepOf,
    /// The numbers of ranks.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_values_t = [1, 2],
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ranks: Vec<u16>,
    /// Whether batch.size is that of each rank or of all.
    #[arg(long, value_enum, default_value_t = Mode::Weak)]
    pub(crate) mode: Mode,
    /// Steps that are timed, after one that is not.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) steps: usize,
    /// Start each measurement so many times, all in turn; the steps of all count together.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Also time as many ranks at once that do not talk, and model the step from them: for CPUs, whose ranks share memory.
    #[arg(long)]
    pub(crate) independent: bool,
    /// Also draw the efficiency.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) figure: Option<PathBuf>,
    /// Also write the numbers to a new file.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
    /// Which devices to compute on.
    #[arg(long, value_enum, default_value_t = super::DeviceChoice::Auto)]
    pub(crate) device: super::DeviceChoice,
}

/// `iad-launch bench project CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Project {
    /// The configuration of the run.
    pub(crate) config: PathBuf,
    /// The cluster, as in configs/clusters; may be repeated.
    #[arg(long, value_name = "FILE.toml", required = true)]
    pub(crate) cluster: Vec<PathBuf>,
    /// The numbers of GPUs.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',',
        default_values_t = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096],
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) gpus: Vec<u32>,
    /// Images of a step for each GPU (default: batch.size).
    #[arg(long, value_name = "IMAGES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) per_gpu: Option<u32>,
    /// Keep the images of a step over all GPUs at batch.size instead: strong scaling.
    #[arg(long, conflicts_with = "per_gpu")]
    pub(crate) strong: bool,
    /// The shape of an image, as in 3x32x32 (default: that of data.train if it is there, else 3x32x32).
    #[arg(long, value_name = "CxHxW", value_parser = shape)]
    pub(crate) image: Option<[usize; 3]>,
    /// The number of classes (default: as for the shape, else 10).
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Change a key of the configuration, as in --set comm.bucket_mib=4; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Also draw the efficiency.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) figure: Option<PathBuf>,
    /// Also write the numbers to a new file.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
}
