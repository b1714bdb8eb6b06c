//! Data set files: their description, a split as a source, and writing.

//!
//! It may use `ground`, `schema` and `hdf5`.

pub(crate) mod read;
pub(crate) mod verify;
pub(crate) mod write;

#[cfg(test)]
mod tests;
