//! `[student]` and `[teachers.NAME]`: the networks of a run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Table;

use super::{Architecture, ClassMatching, Normalize};

/// `[student]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Student {
    /// The architecture.
    pub architecture: Architecture,
    /// The number of classes; by default that of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// The normalisation of images; by default that of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<Normalize>,
    /// A finished run folder or a file of weights to begin with; random values without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Whether the last layer begins with random values all the same.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reset_classifier: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// `[teachers.NAME]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Teacher {
    /// A finished run folder (its best weights, or else its final ones) or a weights file.
    pub checkpoint: PathBuf,
    /// The configuration that trains the teacher if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Overrides of that configuration, like those of `--set`.
    #[serde(default, skip_serializing_if = "Table::is_empty")]
    pub set: Table,
    /// The matching of its outputs with the student's classes.
    #[serde(default, skip_serializing_if = "ClassMatching::is_default")]
    pub match_classes: ClassMatching,
}
