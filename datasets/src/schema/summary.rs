//! Description of a data set file and of its splits, as read from the file.

use std::fmt;
use std::path::PathBuf;

use crate::schema::about::{Coarse, Split};

/// Description of a data set file.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The file.
    pub file: PathBuf,
    /// The name of the data set.
    pub name: String,
    /// Origin of the images, in words.
    pub source: String,
    /// The address of the images; empty if there is none.
    pub url: String,
    /// The names of its classes.
    pub class_names: Vec<String>,
    /// The coarser classes that these belong to, if the file names some.
    pub coarse: Option<Coarse>,
    /// Its splits.
    pub splits: Vec<SplitSummary>,
}

/// Description of one split.
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
    /// The mean of each channel, with pixels from 0 to 1; empty if the file lacks it.
    pub mean: Vec<f64>,
    /// The standard deviation of each channel; empty if the file lacks it.
    pub std: Vec<f64>,
    /// Images in a chunk; `None` if they are contiguous.
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
