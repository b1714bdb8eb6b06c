//! Reading one split of a file: its summary, its labels and its images.

use std::path::Path;

use ::hdf5::dataset::Layout;
use anyhow::{Context, Result};
use memmap2::Mmap;

use super::map::map;
use super::opened::Opened;
use super::reader::Reader;
use super::stream::Stream;
use crate::ground::error::UserError;
use crate::schema::about::Split;
use crate::schema::summary::Summary;

/// The bytes of all images.
#[derive(Debug)]
pub(crate) enum Pixels {
    /// In the file.
    Mapped(Mmap),
    /// In memory.
    Loaded(Vec<u8>),
    /// In the file, read as they are asked for.
    Streamed(Stream),
}

/// The way to access the images of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Mapped, else refused.
    Map,
    /// Mapped if they are contiguous, else read into memory.
    MapOrLoad,
    /// Left in the file, with any layout.
    Stream,
}

/// The splits that the file at `path` has.
pub(crate) fn splits(path: &Path) -> Result<Vec<Split>> {
    Ok(Reader::open(path)?.splits())
}

/// The description of `split` in the file at `path`. Labels are checked, images are not read.
pub(crate) fn summary(path: &Path, split: Split) -> Result<Summary> {
    Ok(Opened::open(path, split)?.summary)
}

/// Reads and checks `split` of the file at `path`: its summary, its images and its labels.
pub(crate) fn read(path: &Path, split: Split, access: Access) -> Result<(Summary, Pixels, Vec<i64>)> {
    let Opened { reader, summary, images, labels, size } = Opened::open(path, split)?;
    let key = format!("{}/images", split.name());
    let offset = reader.offset(&images, &key, size)?;
    let images = match offset {
        _ if access == Access::Stream && images.layout() != Layout::Compact => {
            let (places, samples) = (reader.places(&images, &key, offset)?, labels.len());
            Pixels::Streamed(Stream::new(path, reader.plain.try_clone()?, size / samples, samples, places))
        }
        Some(offset) => {
            Pixels::Mapped(map(&reader.plain, offset, size).with_context(|| format!("mapping {}", path.display()))?)
        }
        None if access == Access::Map && images.layout() != Layout::Compact => {
            let expected = "contiguous images, which all ranks of a node share";
            let hint = "set data.reading = \"streaming\", or import them again without chunks and compression";
            let value = format!("stored as {:?}", images.layout());
            return Err(UserError::expected(expected).file(path).key(key).value(value).hint(hint).into());
        }
        None => Pixels::Loaded(reader.whole(&images, &key, size)?),
    };
    Ok((summary, images, labels))
}
