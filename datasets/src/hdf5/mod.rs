//! Data sets as HDF5 files: the only place that knows the HDF5 library.
//!
//! It may use `ground` and `schema`.
//!
//! Schema, version 1. The file has the attributes `schema` = "iad-images", `version` = 1, `name`, `source` (where the
//! images came from) and `class_names`, and a group `train`, `test` or both. A group has the datasets `images`
//! (`u8 [N, channels, height, width]`) and `labels` (`i64 [N]`), and the attributes `split` (its own name),
//! `images_sha256` and `labels_sha256` (lower-case hex, over the raw bytes, labels little-endian). Optional are the
//! attributes `url`, `coarse_class_names` and `coarse_classes` of the file, and `mean` and `std` of a group.
//!
//! Strings are UTF-8 of fixed length. Those of variable length lie in a heap without checksum, in which a wrong size
//! makes the library loop without end: they are refused by their type, and never read.

pub(crate) mod adversarial;
mod map;
pub(crate) mod opened;
mod places;
pub(crate) mod read;
pub(crate) mod reader;
#[cfg(test)]
pub(crate) mod samples;
mod stream;
pub(crate) mod write;

/// The version of the HDF5 library, as in `1.14.6`.
pub fn hdf5_version() -> String {
    let (major, minor, micro) = ::hdf5::library_version();
    format!("{major}.{minor}.{micro}")
}

#[cfg(test)]
mod tests;
