//! What the user asked for and cannot have on these machines.

use std::fmt;

/// What the user asked for and cannot have here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The key or variable that asks.
    pub key: &'static str,
    /// Its value, or what was found.
    pub value: String,
    /// What was expected.
    pub expected: String,
    /// The way out.
    pub hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} is {}; expected {}\n  next: {}", self.key, self.value, self.expected, self.hint)
    }
}

impl std::error::Error for Refusal {}
