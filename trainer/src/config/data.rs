//! `[data]`: the images, and how they are read.

use std::path::PathBuf;

use datasets::{Augment, Choice};
use serde::{Deserialize, Serialize};

/// `[data]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// The container whose `train` split is the training set.
    pub train: PathBuf,
    /// The container whose `test` split is the test set.
    pub test: PathBuf,
    /// The augmentation of training images; off by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augment: Option<Augment>,
    /// The part of the images in use; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Choice>,
    /// Where the images are during the run.
    #[serde(default)]
    pub reading: Reading,
    /// Batches read ahead of the step.
    #[serde(default = "default_prefetch")]
    pub prefetch: usize,
    /// The number of reading threads.
    #[serde(default = "one_thread")]
    pub threads: usize,
    /// MiB of images that each rank may hold for reading many at once, if they are streamed.
    #[serde(default = "default_window")]
    pub window_mib: usize,
}

impl Data {
    /// The same in bytes.
    pub fn window(&self) -> usize {
        if self.reading == Reading::Streaming { self.window_mib << 20 } else { 0 }
    }
}

fn default_prefetch() -> usize {
    4
}

fn one_thread() -> usize {
    1
}

fn default_window() -> usize {
    128
}

/// Where images are during a run. The results do not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// In memory: one copy on each node, shared by its ranks.
    #[default]
    Resident,
    /// In the file, for data sets larger than memory.
    Streaming,
}
