//! Few large files by name: in a folder, or in a tar archive that is read once and never unpacked to the disk.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Result;
use flate2::read::GzDecoder;

use super::imported::{wrong_archive, wrong_file};
use super::left_out::LeftOut;
use crate::formats::recognise::GZIP;
use crate::formats::tar;
use crate::ground::error::UserError;
use crate::ground::regular::{in_words, open_regular};

const NOT_OURS: &str = "no file of this data set";
const OTHER_VERSION: &str = "another version of the same images";

/// The place of the files of a data set.
#[derive(Debug)]
pub(super) enum Files {
    /// In a folder.
    Folder(PathBuf),
    /// In memory, from an archive.
    Archive(PathBuf, BTreeMap<String, Vec<u8>>),
}

/// The files that a data set may have: the folder in which they are published, and the names with their largest sizes.
pub(super) type Known<'a> = (&'a str, &'a [(&'a str, usize)]);

impl Files {
    /// Finds the files of `known` in `from`: a folder that holds them, one above their folder, or a `.tar.gz`. The first
    /// of `known` with an existing file is chosen. Returns its number, its files, and the other files beside them. `hint` is
    /// the next step for missing files.
    pub(super) fn find(from: &Path, known: &[Known], hint: &str) -> Result<(usize, Files, LeftOut), UserError> {
        let nothing = || {
            let folders: Vec<_> = known.iter().map(|(folder, files)| format!("{folder}/{}", files[0].0)).collect();
            let expected = format!("a folder or .tar.gz archive with {}", folders.join(" or "));
            UserError::expected(expected).file(from).hint(hint)
        };
        if from.is_file() {
            let (members, others) = read_archive(from, known)
                .map_err(|error| wrong_archive(from, GZIP, &error, "a whole .tar.gz archive of this data set", hint))?;
            let inside = |folder: &str| members.keys().any(|name| name.starts_with(&format!("{folder}/")));
            let number = known.iter().position(|(folder, _)| inside(folder)).ok_or_else(nothing)?;
            let (mut own, mut left_out) = (BTreeMap::new(), LeftOut::default());
            others.iter().for_each(|name| left_out.add(NOT_OURS, name));
            for (name, bytes) in members {
                match name.strip_prefix(known[number].0).and_then(|rest| rest.strip_prefix('/')) {
                    Some(rest) => drop(own.insert(rest.to_owned(), bytes)),
                    None => left_out.add(OTHER_VERSION, name),
                }
            }
            return Ok((number, Files::Archive(from.to_owned(), own), left_out));
        }
        for (number, (folder, files)) in known.iter().enumerate() {
            for place in [from.to_owned(), from.join(folder)] {
                if files.iter().any(|(name, _)| place.join(name).is_file()) {
                    let mut names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
                    let folders: Vec<_> = known.iter().map(|(folder, _)| *folder).collect();
                    if place == from {
                        names.extend(folders.iter().filter(|other| *other != folder));
                    }
                    let mut left_out = others_in(&place, &names);
                    for (other, _) in known.iter().filter(|(other, _)| other != folder && from.join(other).is_dir()) {
                        left_out.add(OTHER_VERSION, *other);
                    }
                    if place != from {
                        add_others(from, &folders, &mut left_out);
                    }
                    return Ok((number, Files::Folder(place), left_out));
                }
            }
        }
        Err(nothing())
    }

    /// The path of the file `name` in messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match self {
            Files::Folder(folder) => folder.join(name),
            Files::Archive(archive, _) => archive.join(name),
        }
    }

    /// The contents of a file that has to be there, at most `most` bytes.
    pub(super) fn read(&mut self, name: &str, most: usize, hint: &str) -> Result<Vec<u8>, UserError> {
        let path = self.path(name);
        match self {
            Files::Folder(_) => read_file(&path, most, hint),
            Files::Archive(_, members) => members
                .remove(name)
                .ok_or_else(|| wrong_file(&path, &"missing in the archive", "a whole archive", hint)),
        }
    }
}

/// The files and folders in `folder` but those called `names`.
pub(super) fn others_in(folder: &Path, names: &[&str]) -> LeftOut {
    let mut left_out = LeftOut::default();
    add_others(folder, names, &mut left_out);
    left_out
}

fn add_others(folder: &Path, names: &[&str], left_out: &mut LeftOut) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    found.sort_unstable();
    found.iter().filter(|name| !names.contains(&&name[..])).for_each(|name| left_out.add(NOT_OURS, name));
}

/// All bytes of a file that has to be there and has at most `most`.
pub(super) fn read_file(path: &Path, most: usize, hint: &str) -> Result<Vec<u8>, UserError> {
    let mut bytes = Vec::new();
    let read = open_regular(path).and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| wrong_file(path, &in_words(&error), "a readable file", hint))?;
    if bytes.len() > most {
        return Err(wrong_file(path, &format!("more than {most} bytes"), "a file of this data set", hint));
    }
    Ok(bytes)
}

fn read_archive(path: &Path, known: &[Known]) -> Result<tar::Members> {
    let mut unpacked = GzDecoder::new(BufReader::with_capacity(1 << 20, open_regular(path)?));
    tar::members(&mut unpacked, &|name| {
        known.iter().find_map(|(folder, files)| {
            let name = name.strip_prefix(folder)?.strip_prefix('/')?;
            files.iter().find(|(known, _)| *known == name).map(|&(_, most)| most)
        })
    })
}
