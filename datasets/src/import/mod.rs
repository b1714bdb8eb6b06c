//! Importers: the files of a data set, as their authors publish them, become one HDF5 file.

//!
//! It may use `ground`, `formats`, `schema` and `container`.

use std::path::Path;

use anyhow::Result;

use crate::container::verify::summarise;
use crate::container::write::{refuse_existing, write_from};
use crate::ground::error::UserError;
use crate::ground::source::{Source, per_class};
use crate::import::imported::Imported;
use crate::import::left_out::LeftOut;
use crate::import::splits::SplitNames;
use crate::schema::about::{About, Split};
use crate::schema::layout::Layout;
use crate::schema::summary::Summary;

mod cifar;
mod files;
mod folder;
#[cfg(test)]
mod fuzz;
pub(crate) mod idx;
mod imported;
pub(crate) mod left_out;
mod npy;
mod npz;
mod pictures;
#[cfg(test)]
mod property;
pub(crate) mod splits;
mod tiny_imagenet;
mod tree;

/// The data sets and kinds of files that [`import`] knows.
pub const DATASETS: [&str; 7] =
    ["cifar10", "cifar100", "tiny-imagenet", "fashion-mnist", "mnist", "image-folder", "npz"];

/// Options of an import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// How images lie in the new file.
    pub layout: Layout,
    /// The folders of an image folder that become splits; recognised by name if not given.
    pub split_names: Option<SplitNames>,
    /// Whether a class folder without training images becomes a class.
    pub allow_empty_classes: bool,
}

/// The result of an import.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// The new file.
    pub summary: Summary,
    /// Files that were left out, with the reasons.
    pub left_out: LeftOut,
    /// Classes without images, and labels that begin at 1, in words.
    pub notes: Vec<String>,
}

/// Imports `dataset`, one of [`DATASETS`], from its files in the folder or archive `from` into the new file `to`.
///
/// Every image of `from` is in the new file or named in [`ImportReport::left_out`].
///
/// # Errors
/// Missing or damaged files, an unknown data set, a class that would vanish, and an existing `to` are [`UserError`]s; none
/// leaves a file behind.
pub fn import(dataset: &str, from: &Path, to: &Path, options: &ImportOptions) -> Result<ImportReport> {
    refuse_existing(to)?;
    let known = DATASETS.contains(&dataset);
    if !known {
        let error = UserError::expected(DATASETS.join(", ")).key("the data set").value(dataset);
        return Err(error.did_you_mean(dataset, DATASETS).into());
    }
    if !from.exists() {
        let expected = "the folder or the archive with the files of the data set";
        return Err(UserError::expected(expected).file(from).key("--from").value("missing").into());
    }
    let split_names = options.split_names.as_ref();
    if dataset != "image-folder" && (split_names.is_some() || options.allow_empty_classes) {
        let key = if split_names.is_some() { "--split-names" } else { "--allow-empty-classes" };
        return Err(UserError::expected("the data set image-folder")
            .key(key)
            .value(format!("given for {dataset}"))
            .into());
    }
    let Imported { source, url, coarse, train, test, left_out, in_order } = match dataset {
        "cifar10" => cifar::read(&cifar::CIFAR10, from)?,
        "cifar100" => cifar::read(&cifar::CIFAR100, from)?,
        "tiny-imagenet" => tiny_imagenet::read(from)?,
        "fashion-mnist" => idx::read(&idx::FASHION_MNIST, from)?,
        "mnist" => idx::read(&idx::MNIST, from)?,
        "image-folder" => folder::read(from, split_names, options.allow_empty_classes)?,
        _ => npz::read(from)?,
    };
    let class_names = train.class_names().to_vec();
    let about = About { name: dataset.into(), source, url: url.into(), class_names, coarse };
    let mut splits = vec![(Split::Train, &*train)];
    splits.extend(test.as_deref().map(|test| (Split::Test, test)));
    let mut layout = options.layout;
    if in_order {
        layout.threads = Some(1);
    }
    write_from(to, &about, &splits, &layout)?;
    let notes = splits.iter().filter_map(|&(split, part)| note(split, part)).collect();
    Ok(ImportReport { summary: summarise(to)?, left_out, notes })
}

/// Names the classes of which a split has no image.
fn note(split: Split, part: &dyn Source) -> Option<String> {
    const FEW: usize = 10;
    let (counts, names) = (per_class(part), part.class_names());
    let empty: Vec<&str> =
        (0..names.len()).filter(|&class| counts[class] == 0).map(|class| &names[class][..]).collect();
    let more = if empty.len() > FEW { ", ..." } else { "" };
    let listed = format!("{}{more}", empty[..empty.len().min(FEW)].join(", "));
    let from_one = split == Split::Train && empty.len() == 1 && counts.first() == Some(&0);
    let hint = if from_one { "; its labels begin at 1: subtract 1 if they should begin at 0" } else { "" };
    (!empty.is_empty())
        .then(|| format!("{}: no image of {} of {} classes: {listed}{hint}", split.name(), empty.len(), names.len()))
}

/// Imports with the usual options, and returns the summary alone.
#[cfg(test)]
pub(crate) fn import_simply(dataset: &str, from: &Path, to: &Path, layout: &Layout) -> Result<Summary> {
    let options = ImportOptions { layout: *layout, ..ImportOptions::default() };
    Ok(import(dataset, from, to, &options)?.summary)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn unknown_data_sets_and_folders_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let to = folder.path().join("out.h5");
        let error = import("imagenet", folder.path(), &to, &ImportOptions::default()).expect_err("unknown").to_string();
        assert_eq!(error, format!("the data set is imagenet; expected {}", DATASETS.join(", ")));
        let error = import("cifar10", &folder.path().join("nowhere"), &to, &ImportOptions::default())
            .expect_err("no folder")
            .to_string();
        assert!(error.contains("nowhere: --from is missing; expected the folder"), "{error}");
        fs::write(&to, "precious").expect("writing");
        let error =
            import("cifar10", folder.path(), &to, &ImportOptions::default()).expect_err("target exists").to_string();
        assert!(error.contains("out.h5") && error.contains("does not exist yet") && error.contains("rm "), "{error}");
        assert_eq!(fs::read(&to).expect("reading"), b"precious");
    }
}
