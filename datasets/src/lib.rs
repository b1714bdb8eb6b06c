//! Files to host batches: images, labels, shards and augmentation.
//!
//! An importer turns the files of a data set into one HDF5 file, a [`Container`] reads a [`Split`] of it, and a
//! [`Pipeline`] makes the batches of one rank from any [`Source`]. What a rank gets depends on nothing but the source,
//! the seed, the epoch and its [`Shard`]: the ranks' batches together are the same for any number of ranks.

mod augment;
mod container;
mod error;
mod hdf5;
mod import;
mod loader;
mod memory;
pub mod pickle;
pub mod random;
mod shard;
mod source;

pub use augment::Augment;
pub use container::{Container, Split, SplitSummary, Summary, summarise, write};
pub use error::UserError;
pub use import::{DATASETS, import};
pub use loader::{HostBatch, Loader, Pipeline};
pub use memory::Memory;
pub use random::{Draws, Purpose};
pub use shard::Shard;
pub use source::{Source, Subset, hold_out};
