//! Importers: the files of a data set, as their authors publish them, become one HDF5 file.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::container::{Split, Summary, refuse_existing, summarise, write};
use crate::{Memory, Source, UserError};

mod array;
mod cifar10;
mod fashion_mnist;

/// The data sets that [`import`] knows.
pub const DATASETS: [&str; 2] = ["cifar10", "fashion-mnist"];

/// What an importer found.
struct Imported {
    /// Where the images came from, for the file's `source`.
    source: &'static str,
    train: Memory,
    test: Memory,
}

/// Imports `dataset`, one of [`DATASETS`], from its files in the folder `from` into the new file `to`.
///
/// Missing or damaged files, an unknown data set and an existing `to` are [`UserError`]s; none leaves a file behind.
pub fn import(dataset: &str, from: &Path, to: &Path) -> Result<Summary> {
    refuse_existing(to)?;
    let read = match dataset {
        "cifar10" => cifar10::read,
        "fashion-mnist" => fashion_mnist::read,
        _ => return Err(UserError::expected(DATASETS.join(" or ")).key("the data set").value(dataset).into()),
    };
    if !from.is_dir() {
        return Err(UserError::expected("a folder with the files of the data set").file(from).into());
    }
    let Imported { source, train, test } = read(from)?;
    write(to, dataset, source, train.class_names(), &[(Split::Train, &train), (Split::Test, &test)])?;
    summarise(to)
}

/// All bytes of a file that has to be there.
fn read_file(path: &Path, hint: &str) -> Result<Vec<u8>, UserError> {
    fs::read(path)
        .map_err(|error| UserError::expected("a readable file").file(path).key("the file").value(error).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_data_sets_and_folders_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let to = folder.path().join("out.h5");
        let error = import("mnist", folder.path(), &to).expect_err("unknown").to_string();
        assert_eq!(error, "the data set is mnist; expected cifar10 or fashion-mnist");
        let error = import("cifar10", &folder.path().join("nowhere"), &to).expect_err("no folder").to_string();
        assert!(error.contains("nowhere: expected a folder"), "{error}");
        fs::write(&to, "precious").expect("writing");
        let error = import("cifar10", folder.path(), &to).expect_err("target exists").to_string();
        assert!(error.contains("out.h5") && error.contains("does not exist yet") && error.contains("rm "), "{error}");
        assert_eq!(fs::read(&to).expect("reading"), b"precious");
    }
}
