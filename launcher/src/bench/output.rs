//! Prints and writes the numbers of a benchmark.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use datasets::refuse_existing;
use serde::Serialize;
use trainer::system::files::write_atomically;

use crate::console::Out;

/// Prints `text` on stdout.
///
/// # Errors
/// The terminal cannot be written to.
pub(super) fn print(text: &str) -> Result<()> {
    write!(Out, "{text}").context("writing to the terminal")
}

/// Refuses an existing results file, and makes the folder of a new one, before anything is measured.
///
/// # Errors
/// A [`datasets::UserError`] that names `key`.
pub(super) fn check_new(file: Option<&Path>, key: &str) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    refuse_existing(file).map_err(|error| error.key(key))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))
}

/// Writes `measured` as JSON and prints the file's name.
///
/// # Errors
/// The file or the terminal cannot be written to.
pub(super) fn write_json(file: &Path, measured: &impl Serialize) -> Result<()> {
    write_atomically(file, format!("{}\n", serde_json::to_string_pretty(measured)?).as_bytes())?;
    print(&format!("written to {}\n", file.display()))
}
