//! `iad-launch bench ...`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use trainer::config::{Backend, Override};

use super::launch::{DeviceChoice, LaunchArgs};
use super::shape::shape;

/// `iad-launch bench ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Time the training step of a configuration on synthetic images; prints one JSON line per step.
    Step(BenchStep),
    /// Time what a save costs the steps around it.
    Save(BenchSave),
    /// Time all-reduces over the ranks, in the conventions of nccl-tests.
    Comm(BenchComm),
    /// Time the training step of a configuration on increasing numbers of ranks.
    Scaling(Scaling),
    /// Project a run to a large cluster with a discrete-event simulation of its step.
    Project(Project),
}

/// A training step on synthetic images.
#[derive(Debug, Args)]
pub(crate) struct StepOf {
    /// Configuration; the data and the teachers' files are not read.
    pub(crate) config: PathBuf,
    /// Override a configuration key; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Shape of the images.
    #[arg(long, value_name = "CxHxW", value_parser = shape, default_value = "3x32x32")]
    pub(crate) image: [usize; 3],
    /// Number of classes.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub(crate) classes: usize,
    /// Epoch that decides which loss terms are active.
    #[arg(long, value_name = "EPOCH", default_value_t = 0)]
    pub(crate) epoch: u64,
}

/// `iad-launch bench step CONFIG`
#[derive(Debug, Args)]
pub(crate) struct BenchStep {
    /// The step.
    #[command(flatten)]
    pub(crate) of: StepOf,
    /// Number of steps (default: one step per line of standard input, on one rank only).
    #[arg(long, value_name = "COUNT")]
    pub(crate) steps: Option<usize>,
    /// First save the networks and images to this safetensors file.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Time an evaluation attack (PGD-20, student in evaluation mode) instead, with batch norm folded (true) or not (false).
    #[arg(long, value_name = "FOLD")]
    pub(crate) evaluate: Option<bool>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}

/// `iad-launch bench save CONFIG`
#[derive(Debug, Args)]
pub(crate) struct BenchSave {
    /// The step.
    #[command(flatten)]
    pub(crate) of: StepOf,
    /// New folder for the checkpoints, on the disk to measure; it is removed at the end.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: PathBuf,
    /// Steps from one save to the next.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) every: u32,
    /// Number of rounds: each times the steps without a save and with one.
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Also write the numbers as JSON; an existing file is never overwritten.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}

/// `iad-launch bench comm`
#[derive(Debug, Args)]
pub(crate) struct BenchComm {
    /// Smallest message in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 8)]
    pub(crate) from: u64,
    /// Largest message in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 28, value_parser = clap::value_parser!(u64).range(8..=1 << 34))]
    pub(crate) to: u64,
    /// Factor between message sizes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=1024))]
    pub(crate) factor: u64,
    /// Seconds to spend on each message size.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.3)]
    pub(crate) seconds: f64,
    /// Also time a message of the size of this configuration's gradients; may be repeated.
    #[arg(long, value_name = "CONFIG.toml")]
    pub(crate) gradients: Vec<PathBuf>,
    /// Write the measurements as JSON; an existing file is never overwritten.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
    /// Transport: auto, nccl or mpi, as in comm.backend.
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = backend)]
    pub(crate) backend: Backend,
    /// Let several ranks share a GPU, as comm.share_gpus; for tests only.
    #[arg(long)]
    pub(crate) share_gpus: bool,
    /// Time replays of CUDA graphs that hold the sum and, beside it, a small one of 8 values, as steps do with comm.in_graphs; NCCL
    /// only.
    #[arg(long)]
    pub(crate) in_graphs: bool,
    /// Send sums of up to 64 KiB through NCCL's windows, as with comm.windows; NCCL only. In graphs that is the small one.
    #[arg(long)]
    pub(crate) windows: bool,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}

fn backend(text: &str) -> Result<Backend, String> {
    match text {
        "auto" => Ok(Backend::Auto),
        "nccl" => Ok(Backend::Nccl),
        "mpi" => Ok(Backend::Mpi),
        _ => Err("expected auto, nccl or mpi".into()),
    }
}

/// Scaling mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScalingMode {
    /// batch.size is the number of images per rank.
    Weak,
    /// batch.size is the number of images of all ranks together.
    Strong,
    /// Both, one after the other.
    Both,
}

impl ScalingMode {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ScalingMode::Weak => "weak",
            ScalingMode::Strong => "strong",
            ScalingMode::Both => "both",
        }
    }
}

/// `iad-launch bench scaling CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Scaling {
    /// The step.
    #[command(flatten)]
    pub(crate) of: StepOf,
    /// Numbers of ranks.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_values_t = [1, 2],
        value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ranks: Vec<u16>,
    /// Weak scaling (batch.size per rank), strong scaling (batch.size in total), or both.
    #[arg(long, value_enum, default_value_t = ScalingMode::Weak)]
    pub(crate) mode: ScalingMode,
    /// Timed steps, after one warm-up step.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) steps: usize,
    /// Number of rounds; each round repeats every measurement, and the steps of all rounds count together.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Also time the same number of independent processes at once, and model the step from them: on a CPU, ranks compete for
    /// memory bandwidth.
    #[arg(long)]
    pub(crate) independent: bool,
    /// Also draw the efficiency as an SVG figure.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) figure: Option<PathBuf>,
    /// Also write the numbers as JSON; an existing file is never overwritten.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
    /// Which devices to compute on.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub(crate) device: DeviceChoice,
}

/// `iad-launch bench project CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Project {
    /// Configuration of the run.
    pub(crate) config: PathBuf,
    /// Cluster description, as in configs/clusters; may be repeated.
    #[arg(long, value_name = "FILE.toml", required = true)]
    pub(crate) cluster: Vec<PathBuf>,
    /// Numbers of GPUs.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',',
        default_values_t = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096],
        value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub(crate) gpus: Vec<u32>,
    /// Images per step and GPU (default: batch.size).
    #[arg(long, value_name = "IMAGES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) per_gpu: Option<u32>,
    /// Strong scaling: batch.size is the number of images of all GPUs together.
    #[arg(long, conflicts_with = "per_gpu")]
    pub(crate) strong: bool,
    /// Image shape, as in 3x32x32 (default: the shape in data.train if that file exists, else 3x32x32).
    #[arg(long, value_name = "CxHxW", value_parser = shape)]
    pub(crate) image: Option<[usize; 3]>,
    /// Number of classes (default: from the configuration or data.train, else 10).
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Override a configuration key, as in --set comm.bucket_mib=4; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Also draw the efficiency as an SVG figure.
    #[arg(long, value_name = "FILE.svg")]
    pub(crate) figure: Option<PathBuf>,
    /// Also write the numbers as JSON; an existing file is never overwritten.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) json: Option<PathBuf>,
}
