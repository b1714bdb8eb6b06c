//! Data set files: what they say of themselves, a split of one as a source, and writing one.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Source;
use crate::hdf5::{self, Access, Pixels};
use crate::memory::copy_image;

mod digest;
mod write;

pub(crate) use digest::{Digest, Digested, hex, labels_sha256, sha256};
pub use write::{About, Coarse, Layout, refuse_existing, write, write_from};

/// A part of a data set with a role of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// What networks learn from.
    Train,
    /// What they are measured on.
    Test,
}

impl Split {
    /// All splits a file can have.
    pub const ALL: [Split; 2] = [Split::Train, Split::Test];

    /// The name of its group in the file.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}

/// What a data set file says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The file.
    pub file: PathBuf,
    /// The name of the data set.
    pub name: String,
    /// Where its images came from.
    pub source: String,
    /// Where they can be had; empty if nowhere.
    pub url: String,
    /// The names of its classes.
    pub class_names: Vec<String>,
    /// The coarser classes that these belong to, if the file names some.
    pub coarse: Option<Coarse>,
    /// Its splits.
    pub splits: Vec<SplitSummary>,
}

/// What a data set file says of one split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitSummary {
    /// Which split.
    pub split: Split,
    /// How many samples it has.
    pub samples: usize,
    /// Channels, height and width.
    pub shape: [usize; 3],
    /// SHA-256 of all pixels, in hex.
    pub images_sha256: String,
    /// SHA-256 of all labels as little-endian `i64`, in hex.
    pub labels_sha256: String,
    /// The mean of each channel, with pixels from 0 to 1; empty where the file does not say.
    pub mean: Vec<f64>,
    /// The standard deviation of each channel; empty where the file does not say.
    pub std: Vec<f64>,
    /// Images in a chunk; none where they lie in one piece.
    pub chunk: Option<usize>,
    /// The bytes that the images take in the file.
    pub stored: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}, {} classes", self.file.display(), self.name, self.class_names.len())?;
        for part in &self.splits {
            let [channels, height, width] = part.shape;
            write!(out, "; {}: {} images of {channels}x{height}x{width}", part.split.name(), part.samples)?;
        }
        Ok(())
    }
}

/// Reads what `path` says of itself, and all labels, but no image.
pub fn summarise(path: &Path) -> Result<Summary> {
    let splits = hdf5::splits(path)?;
    let parts = splits.into_iter().map(|split| hdf5::summary(path, split));
    let parts = parts.collect::<Result<Vec<_>>>()?.into_iter();
    let whole = parts.reduce(|whole, part| Summary { splits: [whole.splits, part.splits].concat(), ..whole });
    whole.ok_or_else(|| hdf5::wrong(path, "/", "without a split", "a group `train` or `test`").into())
}

/// Reads all of the file at `path`, in blocks, and compares it with its checksums and statistics. A difference is a
/// [`UserError`](crate::UserError).
pub fn verify(path: &Path) -> Result<Summary> {
    let summary = summarise(path)?;
    for part in &summary.splits {
        let (found, labels_sha256) = hdf5::digest(path, part.split)?;
        let damaged = |key: &str, value: String, expected: String| {
            hdf5::wrong(path, &format!("{}/{key}", part.split.name()), value, expected)
        };
        for (key, stored, found) in
            [("images", &part.images_sha256, found.sha256), ("labels", &part.labels_sha256, labels_sha256)]
        {
            if *stored != found {
                return Err(damaged(key, format!("damaged, with SHA-256 {found}"), format!("SHA-256 {stored}")).into());
            }
        }
        for (key, stored, found) in [("mean", &part.mean, found.mean), ("std", &part.std, found.std)] {
            let differs = stored.iter().zip(&found).any(|(one, other)| !one.is_finite() || (one - other).abs() > 1e-6);
            if differs {
                return Err(damaged(key, format!("{stored:?}"), format!("{found:?}, as the images have")).into());
            }
        }
    }
    Ok(summary)
}

/// A split of a data set file.
#[derive(Debug)]
pub struct Container {
    summary: Summary,
    images: Pixels,
    labels: Vec<i64>,
}

impl Container {
    /// Opens `split` of the file at `path` and checks everything but the checksums; see [`Container::verify`].
    ///
    /// Contiguous images stay in the file and are mapped: all processes of a machine share one copy. Others are read into
    /// memory. A missing, damaged or foreign file is a [`UserError`](crate::UserError). The HDF5 file is closed again on return and never
    /// locked.
    pub fn open(path: &Path, split: Split) -> Result<Self> {
        Self::from_file(path, split, Access::MapOrLoad)
    }

    /// [`open`](Self::open) that refuses images that cannot be mapped, before it reads them.
    pub fn map(path: &Path, split: Split) -> Result<Self> {
        Self::from_file(path, split, Access::Map)
    }

    /// [`open`](Self::open) without images in memory: each is read from the file when it is asked for.
    pub fn stream(path: &Path, split: Split) -> Result<Self> {
        Self::from_file(path, split, Access::Stream)
    }

    fn from_file(path: &Path, split: Split, access: Access) -> Result<Self> {
        hdf5::read(path, split, access).map(|(summary, images, labels)| Self { summary, images, labels })
    }

    /// Computes the checksums of images and labels anew; a difference from those in the file is a
    /// [`UserError`](crate::UserError).
    pub fn verify(&self) -> Result<()> {
        let part = self.part();
        for (name, stored, found) in [
            ("images", &part.images_sha256, self.images_sha256()?),
            ("labels", &part.labels_sha256, labels_sha256(&self.labels)),
        ] {
            if *stored != found {
                let (key, value) = (format!("{}/{name}", part.split.name()), format!("damaged, with SHA-256 {found}"));
                return Err(hdf5::wrong(&self.summary.file, &key, value, format!("SHA-256 {stored}")).into());
            }
        }
        Ok(())
    }

    /// What the file says of itself and of this split.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn part(&self) -> &SplitSummary {
        // `open` puts exactly one there.
        &self.summary.splits[0]
    }

    /// The pixels where they are memory.
    fn pixels(&self) -> Option<&[u8]> {
        match &self.images {
            Pixels::Mapped(bytes) => Some(bytes),
            Pixels::Loaded(bytes) => Some(bytes),
            Pixels::Streamed(_) => None,
        }
    }

    fn images_sha256(&self) -> Result<String> {
        if let Some(pixels) = self.pixels() {
            return Ok(sha256(pixels));
        }
        let size: usize = self.shape().iter().product();
        let (mut digest, mut image) = (Digest::new(self.shape()), vec![0; size]);
        for sample in 0..self.len() {
            self.read(sample, &mut image)?;
            digest.update(&image);
        }
        Ok(digest.finish().sha256)
    }
}

impl Source for Container {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn shape(&self) -> [usize; 3] {
        self.part().shape
    }

    fn class_names(&self) -> &[String] {
        &self.summary.class_names
    }

    fn label(&self, sample: usize) -> i64 {
        self.labels[sample]
    }

    fn read(&self, sample: usize, image: &mut [u8]) -> Result<()> {
        match &self.images {
            Pixels::Mapped(pixels) => copy_image(pixels, self.part().shape, sample, image),
            Pixels::Loaded(pixels) => copy_image(pixels, self.part().shape, sample, image),
            Pixels::Streamed(stream) => stream.read(sample, image),
        }
    }

    fn read_all(&self, wanted: &mut [(usize, &mut [u8])]) -> Result<()> {
        match &self.images {
            Pixels::Streamed(stream) => stream.read_all(wanted),
            _ => wanted.iter_mut().try_for_each(|(sample, image)| Source::read(self, *sample, image)),
        }
    }
}

#[cfg(test)]
mod tests;
