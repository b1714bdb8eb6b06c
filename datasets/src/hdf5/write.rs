//! Writing a file of the schema.

use std::path::Path;

use ::hdf5::types::FixedUnicode;
use ::hdf5::{File, Location};
use anyhow::Result;

use super::{SCHEMA, VERSION};
use crate::container::{Split, labels_sha256, sha256};
use crate::{Memory, Source, UserError};

/// The bytes of free text, and of names and checksums.
const TEXT: usize = 256;
pub(super) const NAME: usize = 64;

/// Writes `splits` to the file at `path`, replacing what is there.
pub(crate) fn fill(
    path: &Path,
    name: &str,
    source: &str,
    class_names: &[String],
    splits: &[(Split, &Memory)],
) -> Result<()> {
    // Since HDF5 1.10 metadata carry checksums, and without times equal contents give equal files.
    let file = File::with_options()
        .with_fapl(|access| access.file_locking(false).libver_v110())
        .with_fcpl(|create| create.obj_track_times(false))
        .create(path)?;
    write_string::<NAME>(&file, "schema", SCHEMA)?;
    file.new_attr::<i64>().create("version")?.write_scalar(&VERSION)?;
    write_string::<TEXT>(&file, "name", name)?;
    write_string::<TEXT>(&file, "source", source)?;
    let names =
        class_names.iter().enumerate().map(|(class, name)| fixed::<NAME>(&format!("class_names[{class}]"), name));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    file.new_attr::<FixedUnicode<NAME>>().shape(names.len()).create("class_names")?.write_raw(&names)?;
    for (split, part) in splits {
        let group = file.create_group_builder().obj_track_times(false).create(split.name())?;
        write_string::<NAME>(&group, "split", split.name())?;
        write_string::<NAME>(&group, "images_sha256", &sha256(part.images()))?;
        write_string::<NAME>(&group, "labels_sha256", &labels_sha256(part.labels()))?;
        let [channels, height, width] = part.shape();
        let images = group.new_dataset::<u8>().obj_track_times(false).shape((part.len(), channels, height, width));
        images.create("images")?.write_raw(part.images())?;
        let labels = group.new_dataset::<i64>().obj_track_times(false).shape(part.len());
        labels.create("labels")?.write_raw(part.labels())?;
    }
    // Closing in silence would hide a full disk.
    file.flush()?;
    Ok(file.close()?)
}

pub(super) fn write_string<const N: usize>(place: &Location, key: &str, text: &str) -> Result<()> {
    Ok(place.new_attr::<FixedUnicode<N>>().create(key)?.write_scalar(&fixed::<N>(key, text)?)?)
}

/// `text` as it is stored, filled up with zeros to `N` bytes.
pub(super) fn fixed<const N: usize>(key: &str, text: &str) -> Result<FixedUnicode<N>, UserError> {
    let proper = Some(text).filter(|text| !text.contains('\0')).and_then(|text| text.parse().ok());
    proper.ok_or_else(|| {
        UserError::expected(format!("at most {N} bytes, none of them 0")).key(key).value(format!("{text:?}"))
    })
}
