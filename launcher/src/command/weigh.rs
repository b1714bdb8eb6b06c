//! `iad-launch weights ...`

use std::path::PathBuf;

use clap::Subcommand;
use trainer::model::Architecture;

use super::Weights;

/// `iad-launch weights ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Weigh {
    /// Turn a checkpoint of PyTorch (torch.save, old or new, or safetensors) into weights of this program.
    Import {
        /// The checkpoint.
        file: PathBuf,
        /// The weights to make; never overwritten.
        #[arg(long, value_name = "NEW.safetensors")]
        to: PathBuf,
        /// The network (default: recognised by its tensors).
        #[arg(long, value_name = "NAME")]
        architecture: Option<Architecture>,
        /// The shape of its images, as in 3x32x32 (default: 64x64 with 200 classes, 28x28 of one channel, else 32x32).
        #[arg(long, value_name = "CxHxW", value_parser = shape)]
        image: Option<[usize; 3]>,
        /// A container of images it is for, instead of their shape.
        #[arg(long, value_name = "FILE.h5", conflicts_with = "image")]
        data: Option<PathBuf>,
        /// The keys that lead to the weights, with dots between them, as in state_dict.
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
    },
    /// Write a run's network as a file that PyTorch reads: a state_dict under the names of the reference's classes.
    Export {
        /// A run folder, or a file of weights.
        from: PathBuf,
        /// The file to make, a .pth, .pt or .safetensors; never overwritten.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// Which weights of a run folder: best, final, latest, ema or swa; by default the first of these that there is.
        #[arg(long, value_enum)]
        weights: Option<Weights>,
    },
    /// Say what a file of weights is and which network it holds.
    Info {
        /// The file.
        file: PathBuf,
    },
}

/// Channels, height and width: `3x32x32`.
pub(super) fn shape(text: &str) -> Result<[usize; 3], String> {
    let sizes = text.split('x').map(|size| size.parse().ok().filter(|size| (1..=4096).contains(size)));
    let sizes: Option<Vec<usize>> = sizes.collect();
    sizes
        .and_then(|sizes| sizes.try_into().ok())
        .ok_or_else(|| "expected channels, height and width, as in 3x32x32".into())
}
