//! The vocabulary of a data set file: its splits, classes, summary and layout.
//!
//! It may use `ground`. Plain data: it opens no file.

pub(crate) mod about;
pub(crate) mod layout;
pub(crate) mod summary;
