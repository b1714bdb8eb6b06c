//! The matching of a network's outputs with the classes of images.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The matching of a trained network's outputs with the classes of images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassMatching {
    /// By the names of the classes, if both weights and images have them.
    #[default]
    Name,
    /// By their order, regardless of their names.
    Order,
}

impl ClassMatching {
    /// Whether a configuration may omit it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for ClassMatching {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Name => "name",
            Self::Order => "order",
        })
    }
}

impl FromStr for ClassMatching {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "name" => Ok(Self::Name),
            "order" => Ok(Self::Order),
            _ => Err("expected name or order".into()),
        }
    }
}
