//! Nothing is lost: every file of any tree or archive is an image of the new file, or is named with a reason.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;
use png::{BitDepth, ColorType};

use crate::formats::picture::tests::png;
use crate::formats::zip::tests::archive;
use crate::ground::random::bits;
use crate::import::{ImportOptions, ImportReport, import};
use crate::{Container, Draws, Purpose, Source, Split, UserError};

mod batches;

/// This letter represents a byte that is not UTF-8.
const NOT_UTF8: char = '#';

/// Numbers one after the other, the same for the same tree.
struct Dice(u64, u32);

impl Dice {
    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        self.1 += 1;
        choices[bits(self.0, self.1) as usize % choices.len()]
    }
}

/// Paths of files: some that make a whole data set, and some that a person, a program or an accident leaves beside them.
fn tree(dice: &mut Dice, base: &[&str], folders: &[&[&str]]) -> BTreeSet<String> {
    let files =
        ["1.png", "2.PNG", "3.webp", "notes.txt", ".4.png", "._5.png", "6#.png", "Thumbs.db", "val_annotations"];
    let mut paths: BTreeSet<String> = base.iter().map(|&path| path.to_owned()).collect();
    for _ in 0..8 {
        let parts: Vec<&str> = folders.iter().map(|choices| dice.of(choices)).filter(|part| !part.is_empty()).collect();
        let path = [&parts[..], &[dice.of(&files)]].concat().join("/");
        // No file where a folder is.
        let clash =
            paths.iter().any(|other| other.starts_with(&format!("{path}/")) || path.starts_with(&format!("{other}/")));
        if !clash {
            paths.insert(path);
        }
    }
    paths
}

fn contents(path: &str, number: usize) -> Vec<u8> {
    match path {
        "wnids.txt" => b"n01\nn02\n".to_vec(),
        "words.txt" => b"n01\tgoldfish\n".to_vec(),
        _ => png(ColorType::Rgb, BitDepth::Eight, &[number as u8, 1, 2]),
    }
}

fn bytes_of(path: &str) -> Vec<u8> {
    path.bytes().map(|byte| if byte == NOT_UTF8 as u8 { 0xe9 } else { byte }).collect()
}

fn write_folder(root: &Path, paths: &BTreeSet<String>) -> Result<()> {
    for (number, path) in paths.iter().enumerate() {
        let target = root.join(OsStr::from_bytes(&bytes_of(path)));
        fs::create_dir_all(target.parent().expect("a folder"))?;
        fs::write(target, contents(path, number))?;
    }
    Ok(())
}

fn write_archive(file: &Path, paths: &BTreeSet<String>) -> Result<()> {
    let members: Vec<_> = paths.iter().enumerate().map(|(number, path)| (&path[..], contents(path, number))).collect();
    let members: Vec<_> = members.iter().map(|(path, bytes)| (*path, &bytes[..])).collect();
    let mut bytes = archive(&members, true, false);
    for path in paths.iter().filter(|path| path.contains(NOT_UTF8)) {
        let places: Vec<_> = bytes
            .windows(path.len())
            .enumerate()
            .filter(|(_, part)| *part == path.as_bytes())
            .map(|(at, _)| at)
            .collect();
        places.into_iter().for_each(|at| bytes[at..at + path.len()].copy_from_slice(&bytes_of(path)));
    }
    Ok(fs::write(file, bytes)?)
}

/// Asserts that the images of the new file and the names left out are the files of the tree, each once.
fn nothing_is_lost(report: &ImportReport, paths: &BTreeSet<String>, read_apart: &[&str]) -> Result<()> {
    let mut found: Vec<String> = read_apart.iter().map(|&name| name.to_owned()).collect();
    let numbered: Vec<&String> = paths.iter().collect();
    for part in &report.summary.splits {
        let container = Container::open(&report.summary.file, part.split)?;
        let [_, height, width] = container.shape();
        let mut image = vec![0; 3 * height * width];
        for sample in 0..container.len() {
            container.read(sample, &mut image)?;
            let path = numbered[usize::from(image[0])];
            let class = &container.class_names()[container.label(sample) as usize];
            let known = if class == "goldfish" { "n01" } else { class };
            assert!(path.split('/').any(|part| part == known), "{path} is in class {class}");
            assert_eq!(part.split == Split::Train, path.starts_with("train/") || !path.starts_with("val"), "{path}");
            found.push(path.clone());
        }
    }
    let shown = |path: &String| path.replace(NOT_UTF8, "\u{fffd}");
    found.extend(report.left_out.reasons().flat_map(|(_, names)| names.to_vec()));
    found.iter_mut().for_each(|path| *path = shown(path));
    found.sort();
    let mut all: Vec<String> = paths.iter().map(shown).collect();
    all.sort();
    assert_eq!(found, all, "{report:?}");
    Ok(())
}

fn check(dataset: &str, base: &[&str], folders: &[&[&str]], read_apart: &[&str]) -> Result<()> {
    let (mut taken, mut trees) = (0, 0);
    for number in 0..60 {
        let paths = tree(&mut Dice(Draws::new(7, Purpose::Shuffle, 0).key(number), 0), base, folders);
        let root = tempfile::tempdir()?;
        let (folder, zip) = (root.path().join("in"), root.path().join("in.zip"));
        write_folder(&folder, &paths)?;
        write_archive(&zip, &paths)?;
        let results = [(&folder, "folder.h5"), (&zip, "zip.h5")]
            .map(|(from, to)| import(dataset, from, &root.path().join(to), &ImportOptions::default()));
        trees += 1;
        match results {
            [Ok(one), Ok(other)] => {
                taken += 1;
                nothing_is_lost(&one, &paths, read_apart)?;
                nothing_is_lost(&other, &paths, read_apart)?;
                assert_eq!(one.summary.splits, other.summary.splits);
            }
            [Err(one), Err(other)] => assert!(one.is::<UserError>() && other.is::<UserError>(), "{one:#} {other:#}"),
            other => panic!("folder and archive differ: {other:?} for {paths:?}"),
        }
    }
    assert!(taken > trees / 4 && taken < trees, "{taken} of {trees} trees were taken: a test of both outcomes");
    Ok(())
}

#[test]
fn every_file_of_an_image_folder_is_taken_or_named() -> Result<()> {
    let base = ["train/a/b.png", "train/b/c.png", "valid/a/d.png", "valid/b/e.png"];
    let folders: [&[&str]; 3] = [
        &["train", "train", "valid", "extra", "", "__MACOSX/train"],
        &["a", "b", "a", "b", "c", "", ".d", "b#"],
        &["", "images", "deep/er"],
    ];
    check("image-folder", &base, &folders, &[])
}

#[test]
fn every_file_of_tiny_imagenet_is_taken_or_named() -> Result<()> {
    let base =
        ["wnids.txt", "words.txt", "train/n01/images/b.png", "train/n02/c.png", "val/n01/d.png", "val/n02/e.png"];
    let folders: [&[&str]; 3] =
        [&["train", "val", "test", "", "extra"], &["n01", "n02", "n01", "", "n03"], &["", "images", "x"]];
    check("tiny-imagenet", &base, &folders, &["wnids.txt", "words.txt"])
}
