//! `iad-launch weights ...`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use trainer::config::{Architecture, Normalize};
use trainer::weights::foreign::ExportFormat;

use super::shape::shape;

/// `iad-launch weights ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Weigh {
    /// Convert a PyTorch checkpoint (torch.save, old or new format, or safetensors) to a weights file of this program.
    Import(Box<ImportWeights>),
    /// Export a run's network for PyTorch or other programs, with a model card beside it.
    Export {
        /// Run folder, or weights file.
        from: PathBuf,
        /// File to create; an existing file is never overwritten. A model card FILE.md is created beside it.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Weights of the run folder: best, final, latest, ema or swa (default: the first of best, final and latest that exists).
        #[arg(long, value_enum)]
        weights: Option<Weights>,
        /// Format: torch or safetensors (a state_dict with the tensor names of the reference implementation), torchscript
        /// (the network with its program), or onnx (needs a Python with torch and onnx). Default: by the ending .pth, .pt,
        /// .safetensors, .ts or .onnx.
        #[arg(long, value_name = "FORMAT")]
        format: Option<ExportFormat>,
        /// Also create FILE's name with .py, a Python module that gives RobustBench the network (TorchScript only).
        #[arg(long)]
        robustbench: bool,
    },
    /// Describe a weights file and its network.
    Info {
        /// Weights file, or run folder (its best, final or latest weights).
        file: PathBuf,
    },
}

/// `iad-launch weights import`
#[derive(Debug, Args)]
pub(crate) struct ImportWeights {
    /// PyTorch checkpoint.
    pub(crate) file: PathBuf,
    /// Weights file to create; an existing file is never overwritten.
    #[arg(long, value_name = "NEW.safetensors")]
    pub(crate) to: PathBuf,
    /// Architecture (default: detected from the tensors).
    #[arg(long, value_name = "NAME")]
    pub(crate) architecture: Option<Architecture>,
    /// Shape of its input images, as in 3x32x32 (default: 64x64 for 200 classes, 28x28 for one channel, else 32x32).
    #[arg(long, value_name = "CxHxW", value_parser = shape)]
    pub(crate) image: Option<[usize; 3]>,
    /// Take the image shape from this container instead, and measure the accuracy on its first images.
    #[arg(long, value_name = "FILE.h5", conflicts_with = "image")]
    pub(crate) data: Option<PathBuf>,
    /// Path of keys to the state_dict in the checkpoint, separated by dots, as in model.state_dict.
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Prefix of the network's tensor names, as in module.model. (default: detected).
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
    /// Normalisation inside the network: none, cifar10, cifar100, imagenet or MEAN,MEAN,MEAN/STD,STD,STD (default: as
    /// the file says).
    #[arg(long, value_name = "NAME")]
    pub(crate) normalize: Option<Normalize>,
    /// Names of its classes in the order of its outputs, separated by commas (default: as the file or --data says).
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) classes: Option<Vec<String>>,
    /// Id of the network in RobustBench's model zoo, which tells what the tensors do not.
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
}

/// Which weights of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// The best weights by the run's selection.
    Best,
    /// The weights after the last epoch.
    Final,
    /// The weights of the newest checkpoint.
    Latest,
    /// The exponential moving average over steps.
    Ema,
    /// The stochastic weight average over epochs.
    Swa,
}
