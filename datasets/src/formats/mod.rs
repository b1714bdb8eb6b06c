//! File formats that other programs write: archives, pickles, arrays and pictures.
//!
//! It may use `ground`. A format knows nothing of data sets, and every reader bounds its memory by the file's real size.

pub mod pickle;
pub(crate) mod pickled_array;
pub(crate) mod picture;
pub(crate) mod recognise;
pub(crate) mod tar;
pub mod zip;
