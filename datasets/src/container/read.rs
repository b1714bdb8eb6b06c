//! A split of a data set file as a source.

use std::path::Path;

use anyhow::Result;

use crate::ground::digest::{Digest, labels_sha256, sha256};
use crate::ground::memory::copy_image;
use crate::ground::source::Source;
use crate::hdf5::read::{Access, Pixels, read};
use crate::hdf5::reader::wrong;
use crate::schema::about::Split;
use crate::schema::summary::{SplitSummary, Summary};

/// A split of a data set file.
#[derive(Debug)]
pub struct Container {
    summary: Summary,
    pub(super) images: Pixels,
    pub(super) labels: Vec<i64>,
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
        read(path, split, access).map(|(summary, images, labels)| Self { summary, images, labels })
    }

    /// Recomputes the checksums of images and labels; a difference from those in the file is a
    /// [`UserError`](crate::UserError).
    pub fn verify(&self) -> Result<()> {
        let part = self.part();
        for (name, stored, found) in [
            ("images", &part.images_sha256, self.images_sha256()?),
            ("labels", &part.labels_sha256, labels_sha256(&self.labels)),
        ] {
            if *stored != found {
                let (key, value) = (format!("{}/{name}", part.split.name()), format!("damaged, with SHA-256 {found}"));
                return Err(wrong(&self.summary.file, &key, value, format!("SHA-256 {stored}")).into());
            }
        }
        Ok(())
    }

    /// The description of the file and of this split.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    fn part(&self) -> &SplitSummary {
        // `open` puts exactly one there.
        &self.summary.splits[0]
    }

    /// The pixels, if they are in memory.
    pub(super) fn pixels(&self) -> Option<&[u8]> {
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
