//! Files to host batches: images, labels, shards and augmentation.
//!
//! An importer turns the files of a data set into one HDF5 file, a [`Container`] reads a [`Split`] of it, and a
//! [`Pipeline`] makes the batches of one rank from any [`Source`]. What a rank gets depends on nothing but the source,
//! the seed, the epoch and its [`Shard`]: the ranks' batches together are the same for any number of ranks.

mod augment;
mod blocks;
mod container;
mod error;
mod fetch;
mod hdf5;
mod import;
mod loader;
mod memory;
pub mod pickle;
pub mod random;
mod shard;
mod sheet;
mod source;
mod stream;
mod subset;

pub use augment::Augment;
pub use container::{
    About, Coarse, Container, Layout, Split, SplitSummary, Summary, refuse_existing, summarise, verify, write,
    write_from,
};
pub use error::UserError;
pub use fetch::{Fetch, OFFICIAL, OfficialFile, Progress, default_cache, fetch};
pub use hdf5::AdversarialFile;
pub use import::{DATASETS, import};
pub use loader::{HostBatch, Loader, Pipeline};
pub use memory::Memory;
pub use random::{Draws, Purpose};
pub use shard::Shard;
pub use sheet::write_sheet;
pub use source::Source;
pub use subset::{Choice, Subset, hold_out, per_class};
