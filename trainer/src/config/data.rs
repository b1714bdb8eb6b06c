//! `[data]`: the images, and how they are read.

use std::path::PathBuf;

use datasets::{Augment, Choice, Extra, UserError};
use serde::{Deserialize, Serialize};

use super::ClassMatching;
use super::range::must;

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
    /// Images of another container in every batch; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<ExtraData>,
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
        let streams = self.reading == Reading::Streaming || self.extra.is_some();
        if streams { self.window_mib << 20 } else { 0 }
    }
}

/// `data.extra`: images of another container, such as generated ones, in every batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtraData {
    /// The container whose `train` split they are. It is streamed, whatever `data.reading` says.
    pub file: PathBuf,
    /// Their share of every batch.
    pub fraction: f64,
    /// The matching of their labels with the classes of the training set.
    #[serde(default, skip_serializing_if = "ClassMatching::is_default")]
    pub match_classes: ClassMatching,
}

impl ExtraData {
    /// How many images of a step of `global_batch` images they are.
    pub fn count(&self, global_batch: usize) -> usize {
        Extra::count(self.fraction, global_batch)
    }

    pub(super) fn check(&self) -> Result<(), UserError> {
        let share = self.fraction;
        let hint = "without data.extra every image is of data.train; with data.train = FILE all are of another file";
        must(share > 0.0 && share < 1.0, "data.extra.fraction", share, "a share between 0 and 1")
            .map_err(|error| error.hint(hint))
    }

    /// Refuses a share of which a step has no image, or nothing else.
    pub(super) fn check_count(&self, global_batch: usize) -> Result<(), UserError> {
        let count = self.count(global_batch);
        let found = format!("{}, which is {count} of the {global_batch} images of a step", self.fraction);
        let expected = "a share that leaves an image of either kind in a step";
        must((1..global_batch).contains(&count), "data.extra.fraction", found, expected)
            .map_err(|error| error.hint("raise batch.size, or choose another share"))
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
