//! The same of batches of CIFAR, in their folders and archives, and of arrays of NumPy: images in are images out, in their
//! order, and everything beside them is named.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;

use super::super::idx::tests::gzip;
use super::super::npz::tests::npy;
use crate::formats::pickled_array as array;
use crate::formats::tar;
use crate::formats::zip::tests::archive;
use crate::ground::damage::Dice;
use crate::import::{ImportOptions, ImportReport, import};
use crate::{Container, Source, Split, UserError};

const PIXELS: usize = 3072;
const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

/// The labels of the images, and what each image begins with.
type Images = Vec<(i64, u8)>;

/// All images of a split.
fn images_of(report: &ImportReport, split: Split) -> Result<Images> {
    if !report.summary.splits.iter().any(|part| part.split == split) {
        return Ok(vec![]);
    }
    let container = Container::open(&report.summary.file, split)?;
    let mut image = vec![0; container.shape().iter().product()];
    let mut read = |sample: usize| container.read(sample, &mut image).map(|()| (container.label(sample), image[0]));
    (0..container.len()).map(&mut read).collect()
}

/// The names left out, sorted, and each once.
fn left_out(report: &ImportReport) -> BTreeSet<String> {
    let names: Vec<String> = report.left_out.reasons().flat_map(|(_, names)| names.to_vec()).collect();
    let sorted: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(sorted.len(), names.len(), "a name twice: {names:?}");
    sorted
}

/// A data set like CIFAR-10: the files by their paths, what is to be found in it, and whether it is whole.
struct Made {
    files: Vec<(String, Vec<u8>)>,
    train: Images,
    test: Images,
    others: BTreeSet<String>,
    whole: bool,
    /// The folder in which this version is published.
    folder: &'static str,
}

/// The files of one of the versions, with others beside them.
fn cifar(dice: &mut Dice) -> Made {
    let python = dice.below(2) == 1;
    let (mut files, mut splits, mut next) = (vec![], [vec![], vec![]], 0);
    for batch in BATCHES {
        let count = 1 + dice.below(3) as usize;
        let records: Images = (next..next + count).map(|number| (dice.below(10) as i64, number as u8)).collect();
        next += count;
        let image = |number: u8| [&[number][..], &[7; PIXELS - 1]].concat();
        let contents = if python {
            let labels: Vec<u8> = records.iter().map(|(label, _)| *label as u8).collect();
            array::batch(&labels, &records.iter().flat_map(|(_, number)| image(*number)).collect::<Vec<_>>())
        } else {
            records.iter().flat_map(|(label, number)| [&[*label as u8][..], &image(*number)].concat()).collect()
        };
        splits[usize::from(batch == "test_batch")].extend(records);
        files.push((format!("{batch}{}", if python { "" } else { ".bin" }), contents));
    }
    let names: Vec<String> = ('a'..='j').map(String::from).collect();
    let meta = if python { array::meta(&[("label_names", &names)]) } else { names.join("\n").into_bytes() };
    files.push((format!("batches.meta{}", if python { "" } else { ".txt" }), meta));
    let whole = dice.below(4) > 0;
    if !whole {
        files.remove(dice.below(files.len() as u64) as usize);
    }
    let mut others = BTreeSet::new();
    for name in ["notes.txt", "data_batch_6.bin", ".hidden", "readme.html", "test_batch.bin.part"] {
        if dice.below(2) == 1 {
            files.push((name.to_string(), vec![7; 5]));
            others.insert(name.to_string());
        }
    }
    let [train, test] = splits;
    let folder = if python { "cifar-10-batches-py/" } else { "cifar-10-batches-bin/" };
    Made { files, train, test, others, whole, folder }
}

fn check(report: Result<ImportReport>, made: &Made, others: &BTreeSet<String>) -> Result<bool> {
    match report {
        Ok(report) => {
            assert!(made.whole, "a file is missing, and nothing was said");
            assert_eq!(
                (images_of(&report, Split::Train)?, images_of(&report, Split::Test)?),
                (made.train.clone(), made.test.clone())
            );
            assert_eq!(&left_out(&report), others);
            Ok(true)
        }
        Err(error) => {
            assert!(!made.whole && error.is::<UserError>(), "{error:#}");
            Ok(false)
        }
    }
}

fn write(root: &Path, name: &[u8], contents: &[u8]) -> Result<()> {
    let path = root.join(OsStr::from_bytes(name));
    fs::create_dir_all(path.parent().expect("a folder"))?;
    Ok(fs::write(path, contents)?)
}

#[test]
fn every_record_and_file_of_cifar_folders_is_taken_or_named() -> Result<()> {
    let mut taken = 0;
    for number in 0..40 {
        let mut dice = Dice::new(80, number);
        let root = tempfile::tempdir()?;
        // In the folder itself, or in one below it that is called as published.
        let outer = dice.below(2) == 1;
        let mut made = cifar(&mut dice);
        let below = if outer { made.folder } else { "" };
        for (name, contents) in &made.files {
            write(root.path(), format!("in/{below}{name}").as_bytes(), contents)?;
        }
        let beside: [(&[u8], &str); 4] = [
            (b"deep/er/1.bin", "deep"),
            (b"caf\xe9.bin", "caf\u{fffd}.bin"),
            (b"cifar.tar.gz", "cifar.tar.gz"),
            (b"link", "link"),
        ];
        for (name, shown) in beside.into_iter().filter(|_| dice.below(2) == 1) {
            if name == b"link" {
                std::os::unix::fs::symlink("nowhere", root.path().join("in/link"))?;
            } else {
                write(root.path(), &[b"in/", name].concat(), b"other")?;
            }
            made.others.insert(shown.to_string());
        }
        let report = import("cifar10", &root.path().join("in"), &root.path().join("out.h5"), &ImportOptions::default());
        taken += usize::from(check(report, &made, &made.others)?);
    }
    assert!((10..40).contains(&taken), "{taken} of 40 folders were taken: a test of both outcomes");
    Ok(())
}

#[test]
fn every_record_and_member_of_cifar_archives_is_taken_or_named() -> Result<()> {
    let mut taken = 0;
    for number in 0..40 {
        let mut dice = Dice::new(81, number);
        let root = tempfile::tempdir()?;
        let made = cifar(&mut dice);
        let folder = made.folder;
        let mut members: Vec<(String, &[u8])> =
            made.files.iter().map(|(name, contents)| (format!("{folder}{name}"), &contents[..])).collect();
        let mut others: BTreeSet<String> = made.others.iter().map(|name| format!("{folder}{name}")).collect();
        for name in ["notes.txt", "elsewhere/data_batch_1.bin"] {
            if dice.below(2) == 1 {
                members.push((name.to_string(), b"other"));
                others.insert(name.to_string());
            }
        }
        let members: Vec<(&str, &[u8])> = members.iter().map(|(name, contents)| (&name[..], *contents)).collect();
        let from = root.path().join("cifar.tar.gz");
        fs::write(&from, gzip(&tar::archive(&members)))?;
        let report = import("cifar10", &from, &root.path().join("out.h5"), &ImportOptions::default());
        taken += usize::from(check(report, &made, &others)?);
    }
    assert!((10..40).contains(&taken), "{taken} of 40 archives were taken: a test of both outcomes");
    Ok(())
}

#[test]
fn every_image_and_array_of_npz_files_is_taken_or_named() -> Result<()> {
    let mut taken = 0;
    for number in 0..120 {
        let mut dice = Dice::new(82, number);
        let mut members: Vec<(String, Vec<u8>)> = vec![];
        let mut next = 0;
        let mut add = |members: &mut Vec<(String, Vec<u8>)>, dice: &mut Dice, [images, labels]: [&str; 2]| -> Images {
            let count = 1 + dice.below(4) as usize;
            let records: Images = (next..next + count).map(|number| (dice.below(3) as i64, number as u8)).collect();
            next += count;
            let pixels: Vec<u8> = records.iter().flat_map(|(_, number)| [*number, 5, 5, 5, 5, 5]).collect();
            let labels_of: Vec<u8> = records.iter().flat_map(|(label, _)| label.to_le_bytes()).collect();
            members.push((format!("{images}.npy"), npy("|u1", &format!("({count}, 2, 3)"), &pixels)));
            members.push((format!("{labels}.npy"), npy("<i8", &format!("({count},)"), &labels_of)));
            records
        };
        let pairs = [["x_train", "y_train"], ["images", "labels"], ["image", "label"]];
        // The first pair that is there counts, whatever the order in the file.
        let first = dice.below(3) as usize;
        let train = add(&mut members, &mut dice, pairs[first]);
        let mut others = BTreeSet::new();
        if first < 2 && dice.below(2) == 1 {
            add(&mut members, &mut dice, pairs[2]);
            others.extend(pairs[2].map(|name| format!("{name}.npy")));
        }
        let test = if dice.below(2) == 1 { add(&mut members, &mut dice, ["x_test", "y_test"]) } else { vec![] };
        for name in ["meta.npy", "notes.txt", "folder/x_train.npy", "x_train"] {
            if dice.below(3) == 0 {
                members.push((name.to_string(), b"other".to_vec()));
                others.insert(name.to_string());
            }
        }
        let whole = dice.below(4) > 0;
        if !whole {
            members.retain(|(name, _)| *name != format!("{}.npy", pairs[first][1]));
        }
        let at = dice.below(members.len() as u64) as usize;
        members.rotate_left(at);
        let root = tempfile::tempdir()?;
        let from = root.path().join("set.npz");
        let listed: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
        fs::write(&from, archive(&listed, dice.below(2) == 1, false))?;
        let report = import("npz", &from, &root.path().join("out.h5"), &ImportOptions::default());
        let made = Made { files: vec![], train, test, others: BTreeSet::new(), whole, folder: "" };
        taken += usize::from(check(report, &made, &others)?);
    }
    assert!((30..120).contains(&taken), "{taken} of 120 files were taken: a test of both outcomes");
    Ok(())
}
