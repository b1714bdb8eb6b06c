//! Weights on disk: checkpoints, the student among their tensors, files of other programs.
//!
//! Uses `system`, `config` and `model`. Read [`checkpoint`] first, then [`student`], [`classes`], [`foreign`] and
//! [`script`].

pub mod checkpoint;
pub mod classes;
pub mod foreign;
pub mod guarding;
pub mod script;
pub mod student;
