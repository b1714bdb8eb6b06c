//! Containers that a configuration names, opened by their key.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use datasets::{Container, DATASETS, OFFICIAL, Split, UserError};

use crate::config::Reading;
use crate::system::files::{ensure_regular, in_words};

/// Opens one split of the container at `path`, which `key` names.
///
/// # Errors
/// A [`UserError`] that names the file and the command that makes it.
pub(super) fn open_container(
    key: &str,
    path: &Path,
    split: Split,
    reading: Reading,
    verify: bool,
) -> Result<Container> {
    if !path.exists() {
        let hint = format!("make it with `{}`", command_for(key, path));
        let error = UserError::expected("an image container (HDF5)").file(path).key(key).value("missing");
        return Err(error.hint(hint).into());
    }
    ensure_regular(path).map_err(|error| {
        UserError::expected("an image container (HDF5) that can be read").file(path).key(key).value(in_words(&error))
    })?;
    let container = match reading {
        Reading::Resident => Container::map(path, split)?,
        Reading::Streaming => Container::stream(path, split)?,
    };
    if verify {
        container.verify()?;
    }
    Ok(container)
}

/// The command that makes the file at `path`.
fn command_for(key: &str, path: &Path) -> String {
    let name = path.file_stem().map(|stem| stem.to_string_lossy().replace('_', "-")).unwrap_or_default();
    let to = path.display();
    match name.as_str() {
        known if OFFICIAL.iter().any(|file| file.dataset == known) => {
            format!("iad-launch data fetch {known} --to {to}")
        }
        known if DATASETS.contains(&known) => format!("iad-launch data import {known} --from PATH --to {to}"),
        // Generated images come as arrays.
        _ if key.starts_with("data.extra") => format!("iad-launch data import npz --from FILE.npz --to {to}"),
        _ => format!("iad-launch data import NAME --from PATH --to {to}"),
    }
}

/// Adds the checksums that `container` states, under the name of its `key`.
pub(super) fn add_sha256(all: &mut BTreeMap<String, String>, key: &str, container: &Container) {
    for split in &container.summary().splits {
        all.insert(format!("the images of {key}"), split.images_sha256.clone());
        all.insert(format!("the labels of {key}"), split.labels_sha256.clone());
    }
}
