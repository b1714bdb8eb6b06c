//! Data set files: what they say of themselves, a split of one as a source, and writing one.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest, Sha256};

use crate::hdf5::{self, Access, Pixels};
use crate::memory::copy_image;
use crate::{Memory, Source, UserError};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The file.
    pub file: PathBuf,
    /// The name of the data set.
    pub name: String,
    /// Where its images came from.
    pub source: String,
    /// The names of its classes.
    pub class_names: Vec<String>,
    /// Its splits.
    pub splits: Vec<SplitSummary>,
}

/// What a data set file says of one split.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Reads what `path` says of itself, opening every split it has.
pub fn summarise(path: &Path) -> Result<Summary> {
    let splits = hdf5::splits(path)?;
    let parts = splits.into_iter().map(|split| Container::open(path, split).map(|part| part.summary));
    let parts = parts.collect::<Result<Vec<_>>>()?.into_iter();
    let whole = parts.reduce(|whole, part| Summary { splits: [whole.splits, part.splits].concat(), ..whole });
    whole.ok_or_else(|| hdf5::wrong(path, "/", "without a split", "a group `train` or `test`").into())
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
    /// memory. A missing, damaged or foreign file is a [`UserError`]. The HDF5 file is closed again on return and never
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

    /// Computes the checksums of images and labels anew; a difference from those in the file is a [`UserError`].
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
        let (mut digest, mut image) = (Sha256::new(), vec![0; size]);
        for sample in 0..self.len() {
            self.read(sample, &mut image)?;
            digest.update(&image);
        }
        Ok(hexadecimal(&digest.finalize()))
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

/// Writes a data set file with `splits`, whose class names must be `class_names`.
///
/// The file appears complete and verified, or not at all; one that exists already is left alone (a [`UserError`]).
pub fn write(path: &Path, name: &str, source: &str, class_names: &[String], splits: &[(Split, &Memory)]) -> Result<()> {
    ensure!(!splits.is_empty(), "a data set file needs a split");
    let proper = |part: &Memory| !part.is_empty() && part.class_names() == class_names;
    ensure!(splits.iter().all(|(_, part)| proper(part)), "a split is empty or has other classes than {class_names:?}");
    refuse_existing(path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let hint = format!("mkdir -p '{}'", folder.display());
        return Err(UserError::expected("an existing folder to write to").file(folder).hint(hint).into());
    }
    let file_name = path.file_name().ok_or_else(|| anyhow!("{} names no file", path.display()))?;
    let unfinished = folder.join(format!(".{}.unfinished-{}", file_name.to_string_lossy(), process::id()));
    let unfinished = Unfinished::claim(unfinished)?;

    hdf5::fill(&unfinished.0, name, source, class_names, splits)
        .with_context(|| format!("writing {}", path.display()))?;
    for (split, _) in splits {
        let checked = Container::open(&unfinished.0, *split).and_then(|written| written.verify());
        checked.context("reading back what was written")?;
    }
    fs::File::open(&unfinished.0)?.sync_all()?;
    refuse_existing(path)?;
    fs::rename(&unfinished.0, path).with_context(|| format!("renaming to {}", path.display()))?;
    // Without this the new name may be lost with the power.
    fs::File::open(folder)?.sync_all().with_context(|| format!("syncing {}", folder.display()))
}

/// Refuses a target that is already there.
pub(crate) fn refuse_existing(path: &Path) -> Result<(), UserError> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let hint = format!("choose another name, or remove it first: rm '{}'", path.display());
    Err(UserError::expected("a file that does not exist yet").file(path).hint(hint))
}

/// A file under a provisional name, removed unless it was renamed.
struct Unfinished(PathBuf);

impl Unfinished {
    fn claim(path: PathBuf) -> Result<Self> {
        fs::File::create_new(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already when all went well.
        let _ = fs::remove_file(&self.0);
    }
}

/// The SHA-256 of `bytes`, in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of `labels` as little-endian bytes, in hex.
pub(crate) fn labels_sha256(labels: &[i64]) -> String {
    sha256(&labels.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests;
