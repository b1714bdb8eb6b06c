//! `[batch]`: the size of a step, and how a rank computes its share.

use serde::{Deserialize, Serialize};

/// `[batch]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSize {
    /// The number of images.
    pub size: usize,
    /// Whether `size` counts the images of all ranks or of each.
    #[serde(default)]
    pub per: Per,
    /// The number of parts in which each rank computes its share of a step, one after the other.
    #[serde(default = "one_part")]
    pub accumulate: usize,
}

fn one_part() -> usize {
    1
}

impl BatchSize {
    /// The number of images of a step over all ranks.
    pub fn global(&self, ranks: usize) -> usize {
        match self.per {
            Per::Global => self.size,
            Per::Rank => self.size * ranks,
        }
    }
}

/// What a batch size counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// All ranks together.
    #[default]
    Global,
    /// Each rank.
    Rank,
}
