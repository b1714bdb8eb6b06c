//! Importers: the files of a data set, as their authors publish them, become one HDF5 file.

use std::fmt::Display;
use std::path::Path;

use anyhow::Result;

use crate::container::{About, Coarse, Layout, Split, Summary, refuse_existing, summarise, write_from};
use crate::{Source, UserError};

mod array;
mod cifar;
mod files;
#[cfg(test)]
mod fuzz;
mod idx;
mod npz;
mod picture;
mod pictures;
mod tar;
mod tree;
mod zip;

#[cfg(test)]
pub(crate) use idx::tests::files as idx_files;
#[cfg(test)]
pub(crate) use picture::decode as decode_picture;

/// The data sets and kinds of files that [`import`] knows.
pub const DATASETS: [&str; 7] =
    ["cifar10", "cifar100", "tiny-imagenet", "fashion-mnist", "mnist", "image-folder", "npz"];

/// What an importer found.
struct Imported {
    /// Where the images came from, for the file's `source`.
    source: String,
    /// Where they can be had; empty if nowhere.
    url: &'static str,
    coarse: Option<Coarse>,
    train: Box<dyn Source>,
    test: Option<Box<dyn Source>>,
}

/// Imports `dataset`, one of [`DATASETS`], from its files in the folder or archive `from` into the new file `to`.
///
/// Missing or damaged files, an unknown data set and an existing `to` are [`UserError`]s; none leaves a file behind.
pub fn import(dataset: &str, from: &Path, to: &Path, layout: &Layout) -> Result<Summary> {
    refuse_existing(to)?;
    let known = DATASETS.contains(&dataset);
    if !known {
        return Err(UserError::expected(DATASETS.join(", ")).key("the data set").value(dataset).into());
    }
    if !from.exists() {
        let expected = "the folder or the archive with the files of the data set";
        return Err(UserError::expected(expected).file(from).key("--from").value("missing").into());
    }
    let Imported { source, url, coarse, train, test } = match dataset {
        "cifar10" => cifar::read(&cifar::CIFAR10, from)?,
        "cifar100" => cifar::read(&cifar::CIFAR100, from)?,
        "tiny-imagenet" => pictures::read_tiny_imagenet(from)?,
        "fashion-mnist" => idx::read(&idx::FASHION_MNIST, from)?,
        "mnist" => idx::read(&idx::MNIST, from)?,
        "image-folder" => pictures::read_folder(from)?,
        _ => npz::read(from)?,
    };
    let class_names = train.class_names().to_vec();
    let about = About { name: dataset.into(), source, url: url.into(), class_names, coarse };
    let mut splits = vec![(Split::Train, &*train)];
    splits.extend(test.as_deref().map(|test| (Split::Test, test)));
    write_from(to, &about, &splits, layout)?;
    summarise(to)
}

/// The error of a file that is not what it has to be.
fn wrong_file(path: &Path, found: &dyn Display, expected: &str, hint: &str) -> UserError {
    UserError::expected(expected).file(path).key("the file").value(format!("{found:#}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn unknown_data_sets_and_folders_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let to = folder.path().join("out.h5");
        let error = import("imagenet", folder.path(), &to, &Layout::default()).expect_err("unknown").to_string();
        assert_eq!(error, format!("the data set is imagenet; expected {}", DATASETS.join(", ")));
        let error = import("cifar10", &folder.path().join("nowhere"), &to, &Layout::default())
            .expect_err("no folder")
            .to_string();
        assert!(error.contains("nowhere: --from is missing; expected the folder"), "{error}");
        fs::write(&to, "precious").expect("writing");
        let error = import("cifar10", folder.path(), &to, &Layout::default()).expect_err("target exists").to_string();
        assert!(error.contains("out.h5") && error.contains("does not exist yet") && error.contains("rm "), "{error}");
        assert_eq!(fs::read(&to).expect("reading"), b"precious");
    }
}
