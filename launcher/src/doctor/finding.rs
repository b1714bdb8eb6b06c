//! One line of the doctor.

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Nothing to do.
    Ok,
    /// Runs work, slower or within limits.
    Warning,
    /// Runs fail.
    Error,
}

impl Level {
    /// The word at the beginning of a line.
    pub(super) fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        }
    }
}

/// What was found of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) subject: String,
    pub(super) level: Level,
    pub(super) text: String,
    /// The way out.
    pub(super) next: Option<String>,
    /// The hosts or ranks that found it; empty where all did.
    #[serde(default)]
    pub(super) on: Vec<String>,
}

/// Nothing to do.
pub(super) fn ok(subject: &str, text: impl Into<String>) -> Finding {
    Finding { subject: subject.into(), level: Level::Ok, text: text.into(), next: None, on: vec![] }
}

/// Runs work, slower or within limits; `next` is the way out.
pub(super) fn warning(subject: &str, text: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { level: Level::Warning, next: Some(next.into()), ..ok(subject, text) }
}

/// Runs fail; `next` is the way out.
pub(super) fn error(subject: &str, text: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding { level: Level::Error, next: Some(next.into()), ..ok(subject, text) }
}
