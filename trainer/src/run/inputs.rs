//! The format of a run folder and the contents of its inputs, as the first start found them: inputs.toml.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Result;
use datasets::UserError;
use serde::{Deserialize, Serialize};

use crate::system::files::{in_words, read_text, write_atomically};

/// The format of new run folders. Format 1 has no inputs.toml.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Recorded {
    format: u32,
    /// SHA-256 by what it is of.
    sha256: BTreeMap<String, String>,
}

/// Refuses inputs with other contents than those that `path`, the inputs.toml of a run, records. There is nothing to compare
/// with at a first start, or in a folder of format 1. `found` are SHA-256 by what they are of.
///
/// # Errors
/// A [`UserError`] that names the input; a folder of a newer format; an I/O error.
pub fn compare(path: &Path, found: &BTreeMap<String, String>) -> Result<()> {
    let error = |expected: String| UserError::expected(expected).file(path);
    let text = match read_text(path) {
        Err(problem) if problem.kind() == ErrorKind::NotFound => return Ok(()),
        Err(problem) => {
            let refused = error("the format and the inputs of a run folder".into());
            return Err(refused.key("the file").value(in_words(&problem)).into());
        }
        Ok(text) => text,
    };
    let recorded: Recorded = toml::from_str(&text).map_err(|problem| {
        error("the format and the inputs of a run folder".into())
            .value(problem.message())
            .hint("move the file away to resume without comparing the inputs")
    })?;
    if recorded.format > FORMAT {
        return Err(error(format!("a run folder of format 1 to {FORMAT}"))
            .key("format")
            .value(recorded.format)
            .hint("resume it with the version of the program that began it, named in environment.toml")
            .into());
    }
    for (what, sha256) in found {
        match recorded.sha256.get(what) {
            Some(before) if before != sha256 => {
                return Err(error(format!("the contents that this run began with, of SHA-256 {before}"))
                    .key(what)
                    .value(format!("other contents, of SHA-256 {sha256}"))
                    .hint("put the old file back, or begin another run with --run")
                    .into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes `path`, the inputs.toml of a run, unless it is there.
///
/// # Errors
/// An I/O error.
pub fn record(path: &Path, found: &BTreeMap<String, String>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let recorded = Recorded { format: FORMAT, sha256: found.clone() };
    write_atomically(path, toml::to_string(&recorded)?.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn other_contents_are_refused_by_name_and_newer_formats_too() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("inputs.toml");
        let inputs = |value: &str| BTreeMap::from([("the images of data.train".to_string(), value.to_string())]);
        compare(&path, &inputs("one")).unwrap();
        record(&path, &inputs("one")).unwrap();
        record(&path, &inputs("other")).unwrap();
        compare(&path, &inputs("one")).unwrap();
        let message = compare(&path, &inputs("other")).unwrap_err().to_string();
        for part in ["the images of data.train", "one", "other", "inputs.toml"] {
            assert!(message.contains(part), "{message}");
        }
        fs::write(&path, "format = 3\n[sha256]\n").unwrap();
        assert!(compare(&path, &inputs("one")).unwrap_err().to_string().contains("format"));
        fs::write(&path, "torn").unwrap();
        assert!(compare(&path, &inputs("one")).is_err());
    }
}
