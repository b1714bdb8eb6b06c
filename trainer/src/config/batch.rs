//! `[batch]`: the size of a step, and its parts on a rank.

use serde::{Deserialize, Serialize};

/// `[batch]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSize {
    /// The number of images.
    pub size: usize,
    /// Whether `size` counts the images of all ranks or of one rank.
    #[serde(default)]
    pub per: Per,
    /// The number of parts of a rank's share of a step, computed one after the other.
    #[serde(default = "one_part")]
    pub accumulate: usize,
}

fn one_part() -> usize {
    1
}

impl BatchSize {
    /// The number of images of a step on all ranks.
    pub fn global(&self, ranks: usize) -> usize {
        match self.per {
            Per::Global => self.size,
            Per::Rank => self.size * ranks,
        }
    }
}

/// What a batch size counts: the images of all ranks or of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Those of all ranks together.
    #[default]
    Global,
    /// Those of one rank.
    Rank,
}
