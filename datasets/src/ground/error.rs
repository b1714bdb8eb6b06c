//! Errors of the user, each with the next step.

use std::fmt;
use std::path::PathBuf;

/// A mistake in the user's command, configuration or data, found before training.
///
/// `main` prints it as one message and exits with code 2. Everything else that goes wrong is an ordinary error.
#[derive(Debug, Clone, Default)]
pub struct UserError {
    /// The file that is wrong or missing.
    pub file: Option<PathBuf>,
    /// The key, dataset, record or option inside it, as the user would type it (`attack.eps`, `train/labels[17]`).
    pub key: Option<String>,
    /// The value found.
    pub value: Option<String>,
    /// The value or state expected instead.
    pub expected: String,
    /// The next step: a command or an edit.
    pub hint: Option<String>,
}

impl UserError {
    /// An error with the expected value. The builder methods add the file, key, value and hint.
    pub fn expected(expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), ..Self::default() }
    }

    /// Names the file.
    pub fn file(mut self, file: impl Into<PathBuf>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Names the key.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Quotes the value found.
    pub fn value(mut self, value: impl fmt::Display) -> Self {
        self.value = Some(value.to_string());
        self
    }

    /// Adds the next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(out, "{}: ", file.display())?;
        }
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(out, "{key} is {value}; ")?,
            (Some(key), None) => write!(out, "{key}: ")?,
            (None, Some(value)) => write!(out, "found {value}; ")?,
            (None, None) => {}
        }
        write!(out, "expected {}", self.expected)?;
        if let Some(hint) = &self.hint {
            write!(out, "\n  next: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UserError {}
