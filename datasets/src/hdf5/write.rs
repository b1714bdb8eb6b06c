//! Writing a file of the schema.

use std::path::Path;

use ::hdf5::filters::deflate_available;
use ::hdf5::types::FixedUnicode;
use ::hdf5::{Dataset, File, Group, Location};
use anyhow::{Context, Result, ensure};
use ndarray::ArrayView4;

use super::reader::{LONGEST, SCHEMA, VERSION};
use crate::ground::blocks::in_order;
use crate::ground::digest::{Digest, labels_sha256};
use crate::ground::error::UserError;
use crate::ground::source::Source;
use crate::schema::about::{About, Split};
use crate::schema::layout::Layout;

/// The bytes of free text, and of names and checksums.
const TEXT: usize = 256;
pub(super) const NAME: usize = 64;

/// Writes `splits` to the file at `path`, replacing an existing file.
pub(crate) fn fill(path: &Path, about: &About, splits: &[(Split, &dyn Source)], layout: &Layout) -> Result<()> {
    // Since HDF5 1.10 metadata carry checksums, and without times equal contents give equal files.
    let file = File::with_options()
        // Chunks go to the disk at once: the library crashes when it closes a dataset whose cached chunks find it full.
        .with_fapl(|access| access.file_locking(false).libver_v110().chunk_cache(1, 0, 0.0))
        .with_fcpl(|create| create.obj_track_times(false))
        .create(path)?;
    write_string::<NAME>(&file, "schema", SCHEMA)?;
    file.new_attr::<i64>().create("version")?.write_scalar(&VERSION)?;
    write_string::<TEXT>(&file, "name", &about.name)?;
    write_string::<TEXT>(&file, "source", &about.source)?;
    if !about.url.is_empty() {
        write_string::<TEXT>(&file, "url", &about.url)?;
    }
    write_strings(&file, "class_names", &about.class_names)?;
    if let Some(coarse) = &about.coarse {
        write_strings(&file, "coarse_class_names", &coarse.names)?;
        file.new_attr::<i64>().shape(coarse.of_class.len()).create("coarse_classes")?.write_raw(&coarse.of_class)?;
    }
    for (split, part) in splits {
        write_split(&file, *split, *part, layout).with_context(|| format!("the split {}", split.name()))?;
    }
    // Closing in silence would hide a full disk.
    file.flush()?;
    Ok(file.close()?)
}

fn write_split(file: &File, split: Split, part: &dyn Source, layout: &Layout) -> Result<()> {
    let group = file.create_group_builder().obj_track_times(false).create(split.name())?;
    write_string::<NAME>(&group, "split", split.name())?;
    let labels: Vec<i64> = (0..part.len()).map(|sample| part.label(sample)).collect();
    let images = create_images(&group, part, layout)?;
    let [channels, height, width] = part.shape();
    let mut digest = Digest::new(part.shape());
    // A chunk holds at most the images of the split.
    let block = layout.block_of(part.shape()).min(part.len());
    in_order(part, block, layout.threads(), |first, bytes| {
        digest.update(bytes);
        let count = bytes.len() / (channels * height * width);
        let block = ArrayView4::from_shape((count, channels, height, width), bytes)?;
        Ok(images.write_slice(block, (first..first + count, .., .., ..))?)
    })?;
    let digest = digest.finish();
    write_string::<NAME>(&group, "images_sha256", &digest.sha256)?;
    write_string::<NAME>(&group, "labels_sha256", &labels_sha256(&labels))?;
    for (name, values) in [("mean", &digest.mean), ("std", &digest.std)] {
        group.new_attr::<f64>().shape(channels).create(name)?.write_raw(values)?;
    }
    let dataset = group.new_dataset::<i64>().obj_track_times(false).shape(part.len());
    Ok(dataset.create("labels")?.write_raw(&labels)?)
}

fn create_images(group: &Group, part: &dyn Source, layout: &Layout) -> Result<Dataset> {
    let [channels, height, width] = part.shape();
    let images = group.new_dataset::<u8>().obj_track_times(false).shape((part.len(), channels, height, width));
    let Some(chunk) = layout.chunk_of(part.shape()) else { return Ok(images.create("images")?) };
    let images = images.chunk((chunk.min(part.len()), channels, height, width));
    let Some(level) = layout.compress else { return Ok(images.fletcher32().create("images")?) };
    ensure!(deflate_available(), "this build of HDF5 cannot compress");
    Ok(images.deflate(level).fletcher32().create("images")?)
}

pub(super) fn write_string<const N: usize>(place: &Location, key: &str, text: &str) -> Result<()> {
    Ok(place.new_attr::<FixedUnicode<N>>().create(key)?.write_scalar(&fixed::<N>(key, text)?)?)
}

/// Writes names as strings of one length: the usual one, or the longest readable one if a name needs it.
fn write_strings(place: &Location, key: &str, texts: &[String]) -> Result<()> {
    fn write<const N: usize>(place: &Location, key: &str, texts: &[String]) -> Result<()> {
        let texts = texts.iter().enumerate().map(|(number, text)| fixed::<N>(&format!("{key}[{number}]"), text));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        Ok(place.new_attr::<FixedUnicode<N>>().shape(texts.len()).create(key)?.write_raw(&texts)?)
    }
    match texts.iter().map(String::len).max() {
        Some(..=NAME) => write::<NAME>(place, key, texts),
        Some(..=TEXT) => write::<TEXT>(place, key, texts),
        _ => write::<LONGEST>(place, key, texts),
    }
}

/// `text` in its stored form, padded with zeros to `N` bytes.
pub(super) fn fixed<const N: usize>(key: &str, text: &str) -> Result<FixedUnicode<N>, UserError> {
    let proper = Some(text).filter(|text| !text.contains('\0')).and_then(|text| text.parse().ok());
    proper.ok_or_else(|| {
        UserError::expected(format!("at most {N} bytes, none of them 0")).key(key).value(format!("{text:?}"))
    })
}
