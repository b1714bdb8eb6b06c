//! `iad-launch data ...`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use datasets::SplitNames;

/// `iad-launch data ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Download a published data set, verify its checksums, and convert it to one container.
    Fetch {
        /// Data set: cifar10, cifar100, tiny-imagenet or fashion-mnist.
        dataset: String,
        /// Container to create (default: data/DATASET.h5); an existing file is never overwritten.
        #[arg(long, value_name = "FILE.h5")]
        to: Option<PathBuf>,
        /// Download the files from this address instead of the official ones.
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Download cache (default: downloads in $IAD_CACHE or ~/.cache/iad).
        #[arg(long, value_name = "FOLDER")]
        cache: Option<PathBuf>,
        /// Layout of the images in the container.
        #[command(flatten)]
        layout: LayoutOptions,
    },
    /// Convert the files of a data set to one container.
    Import {
        /// Format to read: cifar10, cifar100, tiny-imagenet, fashion-mnist, mnist, image-folder or npz.
        dataset: String,
        /// Folder of the data set, or the archive as downloaded.
        #[arg(long, value_name = "PATH")]
        from: PathBuf,
        /// Container to create; an existing file is never overwritten.
        #[arg(long, value_name = "FILE.h5")]
        to: PathBuf,
        /// Folders of an image-folder that hold its splits, such as train=photos,test=held_out; `.` is the whole of --from
        /// (default: recognised by name, such as train and test or val).
        #[arg(long, value_name = "train=FOLDER,test=FOLDER")]
        split_names: Option<SplitNames>,
        /// Keep the class folders of an image-folder that hold no training image.
        #[arg(long)]
        allow_empty_classes: bool,
        /// Layout of the images in the container.
        #[command(flatten)]
        layout: LayoutOptions,
    },
    /// Describe the contents of a container.
    Info {
        /// The container.
        file: PathBuf,
        /// Also draw a sheet with the first images of each class.
        #[arg(long, value_name = "FILE.png")]
        sheet: Option<PathBuf>,
        /// Print the summary as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Verify all checksums of a container.
    Verify {
        /// The container.
        file: PathBuf,
        /// Print the summary as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Layout of the images in a container.
#[derive(Debug, Args)]
pub(crate) struct LayoutOptions {
    /// Store images in chunks of this many, which are read one at a time (default: one contiguous block, which the ranks of a
    /// node map and share).
    #[arg(long, value_name = "IMAGES", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) chunks: Option<u32>,
    /// Compress the chunks with deflate, from 1 (fast) to 9 (small).
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) compress: Option<u8>,
    /// Number of reading threads (default: one per core). It does not change the container.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) threads: Option<u16>,
}
