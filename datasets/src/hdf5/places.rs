//! The places of images in a file, for reading without the HDF5 library.

use ::hdf5::Dataset;
use ::hdf5::dataset::Layout;
use ::hdf5::filters;
use anyhow::Result;

use super::reader::Reader;
use super::stream::{Chunk, Filter, Places};
use crate::ground::error::UserError;

impl Reader<'_> {
    /// The places of the images of `dataset`, which begin at `offset` if they are contiguous. Chunks must be of whole images
    /// and lie within the file.
    pub(super) fn places(&self, dataset: &Dataset, key: &str, offset: Option<u64>) -> Result<Places> {
        if let Some(offset) = offset {
            return Ok(Places::Contiguous(offset));
        }
        let refused = |value: String, expected: &str| -> Result<Places> {
            let hint = "import it again, or set data.reading = \"resident\"";
            Err(UserError::expected(expected).file(self.path).key(key).value(value).hint(hint).into())
        };
        let (shape, chunk) = (dataset.shape(), dataset.chunk().unwrap_or_default());
        if dataset.layout() != Layout::Chunked || chunk.len() != shape.len() || chunk[1..] != shape[1..] {
            return refused(
                format!("of shape {shape:?} in chunks of {chunk:?}"),
                "chunks of whole images, to stream them",
            );
        }
        let known = dataset.filters().into_iter().map(|filter| match filter {
            filters::Filter::Deflate(_) => Ok(Filter::Deflate),
            filters::Filter::Shuffle => Ok(Filter::Shuffle),
            filters::Filter::Fletcher32 => Ok(Filter::Fletcher32),
            other => Err(format!("written with the filter {other:?}")),
        });
        let filters = match known.collect::<Result<Vec<_>, _>>() {
            Ok(filters) => filters,
            Err(value) => return refused(value, "no filters but deflate, shuffle and fletcher32, to stream images"),
        };

        let mut stored = Vec::new();
        dataset.chunks_visit(|chunk| {
            stored.push((chunk.offset[0] as usize, chunk.addr, chunk.size, chunk.filter_mask));
            0
        })?;
        stored.sort_unstable();
        let (images, count) = (chunk[0], shape[0].div_ceil(chunk[0]));
        let whole = stored.len() == count && stored.iter().enumerate().all(|(number, part)| part.0 == number * images);
        let within = |at: u64, bytes: u64| at.checked_add(bytes).is_some_and(|end| end <= self.length);
        if !whole || !stored.iter().all(|&(_, at, bytes, _)| within(at, bytes) && bytes <= u32::MAX.into()) {
            let value = format!("{} chunks of {images} images in a file of {} bytes", stored.len(), self.length);
            return Err(self.wrong(key, value, format!("{count} chunks, all within the file")).into());
        }
        let chunks = stored.into_iter().map(|(_, at, bytes, skipped)| Chunk { at, bytes: bytes as u32, skipped });
        Ok(Places::Chunked { images, filters, chunks: chunks.collect() })
    }
}
