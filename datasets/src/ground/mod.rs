//! The ground floor: errors for users, randomness, numbered samples and their checksums.
//!
//! It uses nothing of this crate. Read [`source`] first: every data set is a `Source`.

pub(crate) mod blocks;
pub mod damage;
pub(crate) mod digest;
pub(crate) mod error;
pub(crate) mod memory;
pub(crate) mod nearest;
pub mod random;
pub(crate) mod regular;
pub(crate) mod source;
