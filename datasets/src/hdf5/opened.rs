//! One split of an open file, checked but for its images, and reading those in blocks.

use std::path::Path;

use ::hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use ::hdf5::{Dataset, H5Type, Location};
use anyhow::Result;
use ndarray::Array4;

use super::reader::{HINT, Reader, last};
use crate::ground::digest::{Digest, Digested, labels_sha256};
use crate::ground::memory::{check_labels, image_bytes};
use crate::schema::about::{Coarse, Split};
use crate::schema::summary::{SplitSummary, Summary};

/// The classes that a file may have.
const CLASSES: usize = 1 << 16;

/// A split whose summary is known and whose images can be read.
pub(super) struct Opened<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) summary: Summary,
    pub(super) images: Dataset,
    pub(super) labels: Vec<i64>,
    /// The bytes of all images.
    pub(super) size: usize,
}

impl<'a> Opened<'a> {
    pub(super) fn open(path: &'a Path, split: Split) -> Result<Self> {
        let reader = Reader::open(path)?;
        let class_names = reader.strings(&reader.file, "class_names", CLASSES)?;
        if class_names.is_empty() {
            return Err(reader.wrong("class_names", "empty", "a name for every class").into());
        }
        let group = reader.group(split)?;
        let key = |name: &str| format!("{}/{name}", split.name());

        let images = reader.dataset(&group, &key("images"), TypeDescriptor::Unsigned(IntSize::U1))?;
        let dimensions = images.shape();
        let [samples, shape @ ..] = match *dimensions.as_slice() {
            [n, c, h, w] if !dimensions.contains(&0) => [n, c, h, w],
            _ => {
                let expected = "four dimensions, [N, channels, height, width], none of them 0";
                return Err(reader.wrong(&key("images"), format!("of shape {dimensions:?}"), expected).into());
            }
        };
        let labels = reader.dataset(&group, &key("labels"), TypeDescriptor::Integer(IntSize::U8))?;
        if labels.shape() != [samples] {
            let value = format!("of shape {:?}", labels.shape());
            return Err(reader.wrong(&key("labels"), value, format!("[{samples}], a label for every image")).into());
        }
        let labels: Vec<i64> = reader.whole(&labels, &key("labels"), samples)?;
        check_labels(&labels, class_names.len(), &key("labels")).map_err(|error| error.file(path).hint(HINT))?;

        // No overflow: a size that does not fit is larger than any file.
        let size = image_bytes(shape).and_then(|size| size.checked_mul(samples)).unwrap_or(usize::MAX);
        reader.offset(&images, &key("images"), size)?;
        let numbers = |name: &str| -> Result<Vec<f64>> {
            let kind = TypeDescriptor::Float(FloatSize::U8);
            Ok(reader.numbers(&group, &key(name), &kind, shape[0])?.unwrap_or_default())
        };
        let part = SplitSummary {
            split,
            samples,
            shape,
            images_sha256: reader.string(&group, &key("images_sha256"))?,
            labels_sha256: reader.string(&group, &key("labels_sha256"))?,
            mean: numbers("mean")?,
            std: numbers("std")?,
            chunk: images.chunk().map(|chunk| chunk[0]),
            stored: images.storage_size(),
        };
        let there = |name: &str| reader.file.attr(name).is_ok();
        let summary = Summary {
            file: path.to_owned(),
            name: reader.string(&reader.file, "name")?,
            source: reader.string(&reader.file, "source")?,
            url: if there("url") { reader.string(&reader.file, "url")? } else { String::new() },
            coarse: if there("coarse_class_names") { Some(reader.coarse(class_names.len())?) } else { None },
            class_names,
            splits: vec![part],
        };
        Ok(Self { reader, summary, images, labels, size })
    }
}

/// The checksums and statistics of a split as it lies in the file: of its images, and of its labels. Reads in blocks.
pub(crate) fn digest(path: &Path, split: Split) -> Result<(Digested, String)> {
    let opened = Opened::open(path, split)?;
    let part = &opened.summary.splits[0];
    let key = format!("{}/images", split.name());
    let mut digest = Digest::new(part.shape);
    // Whole chunks, so that none is unpacked twice; never more than about 16 MiB, unless one chunk is larger.
    let size: usize = part.shape.iter().product();
    let chunk = part.chunk.unwrap_or(1);
    let block = ((16 << 20) / size.saturating_mul(chunk)).max(1) * chunk;
    for first in (0..part.samples).step_by(block) {
        let last = part.samples.min(first + block);
        let images: Array4<u8> = opened
            .images
            .read_slice((first..last, .., .., ..))
            .map_err(|error| opened.reader.wrong(&key, format!("damaged ({error})"), "readable data"))?;
        digest.update(images.as_slice().unwrap_or_default());
    }
    Ok((digest.finish(), labels_sha256(&opened.labels)))
}

impl Reader<'_> {
    /// The `count` numbers of the attribute `key`, or none if it is not there.
    fn numbers<T: H5Type>(
        &self,
        place: &Location,
        key: &str,
        kind: &TypeDescriptor,
        count: usize,
    ) -> Result<Option<Vec<T>>> {
        let Ok(attribute) = place.attr(last(key)) else { return Ok(None) };
        let expected = format!("{count} numbers of type {kind}");
        let found = attribute.dtype().and_then(|found| found.to_descriptor());
        if attribute.shape() != [count] || !found.is_ok_and(|found| found == *kind) {
            return Err(self
                .wrong(key, format!("of shape {:?} or of another type", attribute.shape()), expected)
                .into());
        }
        let numbers = attribute.as_reader().read_raw();
        Ok(Some(numbers.map_err(|error| self.wrong(key, format!("unreadable ({error})"), expected))?))
    }

    fn coarse(&self, classes: usize) -> Result<Coarse> {
        let names = self.strings(&self.file, "coarse_class_names", CLASSES)?;
        let kind = TypeDescriptor::Integer(IntSize::U8);
        let of_class = self.numbers(&self.file, "coarse_classes", &kind, classes)?;
        let of_class =
            of_class.ok_or_else(|| self.wrong("coarse_classes", "missing", "the coarse class of each class"))?;
        check_labels(&of_class, names.len(), "coarse_classes").map_err(|error| error.file(self.path).hint(HINT))?;
        Ok(Coarse { names, of_class })
    }
}
