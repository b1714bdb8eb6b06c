//! Summaries of data set files, and comparing whole files with their checksums.

use std::path::Path;

use anyhow::Result;

use crate::hdf5::opened::digest;
use crate::hdf5::read::{splits, summary};
use crate::hdf5::reader::wrong;
use crate::schema::summary::Summary;

/// Reads the description of the file at `path` and checks all labels, without reading images.
pub fn summarise(path: &Path) -> Result<Summary> {
    let parts = splits(path)?.into_iter().map(|split| summary(path, split));
    let parts = parts.collect::<Result<Vec<_>>>()?.into_iter();
    let whole = parts.reduce(|whole, part| Summary { splits: [whole.splits, part.splits].concat(), ..whole });
    whole.ok_or_else(|| wrong(path, "/", "without a split", "a group `train` or `test`").into())
}

/// Reads all of the file at `path`, in blocks, and compares it with its checksums and statistics. A difference is a
/// [`UserError`](crate::UserError).
pub fn verify(path: &Path) -> Result<Summary> {
    let summary = summarise(path)?;
    for part in &summary.splits {
        let (found, labels_sha256) = digest(path, part.split)?;
        let damaged = |key: &str, value: String, expected: String| {
            wrong(path, &format!("{}/{key}", part.split.name()), value, expected)
        };
        for (key, stored, found) in
            [("images", &part.images_sha256, found.sha256), ("labels", &part.labels_sha256, labels_sha256)]
        {
            if *stored != found {
                return Err(damaged(key, format!("damaged, with SHA-256 {found}"), format!("SHA-256 {stored}")).into());
            }
        }
        for (key, stored, found) in [("mean", &part.mean, found.mean), ("std", &part.std, found.std)] {
            let differs = stored.iter().zip(&found).any(|(one, other)| !one.is_finite() || (one - other).abs() > 1e-6);
            if differs {
                return Err(damaged(key, format!("{stored:?}"), format!("{found:?}, as the images have")).into());
            }
        }
    }
    Ok(summary)
}
