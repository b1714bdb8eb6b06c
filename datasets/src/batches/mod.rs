//! From sources to the batches of one rank: subsets, shards, a second source, augmentation and the threads that prepare
//! batches.
//!
//! It may use `ground`. Read `loader` last: it puts the others together.

pub(crate) mod augment;
#[cfg(test)]
mod counting;
pub(crate) mod extra;
pub(crate) mod loader;
pub(crate) mod shard;
pub(crate) mod subset;
