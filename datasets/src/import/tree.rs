//! Many small files by their paths: in a folder, or in a zip archive that is never unpacked to the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::files::read_file;
use super::wrong_file;
use super::zip::{Member, Zip};
use crate::UserError;

/// Folders inside each other that are looked into; no layout read here has more.
const DEEPEST: usize = 4;

/// Files by their paths below a root, with `/` between the parts.
#[derive(Debug)]
pub(super) enum Tree {
    /// In a folder.
    Folder(PathBuf, Vec<String>),
    /// In an archive; folders that hold everything are left out of the paths.
    Archive(PathBuf, Zip<File>, BTreeMap<String, Member>),
}

impl Tree {
    /// Lists the files below the folder `from` or in the zip archive `from`. `hint` says what to do if that fails.
    pub(super) fn open(from: &Path, hint: &str) -> Result<Self, UserError> {
        if from.is_file() {
            let zip = File::open(from).map_err(anyhow::Error::from).and_then(Zip::open);
            let zip = zip.map_err(|error| wrong_file(from, &error, "a folder or a whole zip archive", hint))?;
            let root = common_folder(zip.members.iter().map(|member| &member.name[..]));
            let members = zip.members.iter().map(|member| (member.name[root..].to_owned(), member.clone()));
            let members = members.collect();
            return Ok(Self::Archive(from.to_owned(), zip, members));
        }
        let mut files = Vec::new();
        list(from, "", DEEPEST, &mut files).map_err(|error| wrong_file(from, &error, "a readable folder", hint))?;
        files.sort_unstable();
        Ok(Self::Folder(from.to_owned(), files))
    }

    /// The paths of all files, in ascending order.
    pub(super) fn files(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Tree::Folder(_, files) => Box::new(files.iter().map(String::as_str)),
            Tree::Archive(_, _, members) => Box::new(members.keys().map(String::as_str)),
        }
    }

    /// What a message calls the file `name`.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        match self {
            Tree::Folder(folder, _) => folder.join(name),
            Tree::Archive(archive, ..) => archive.join(name),
        }
    }

    /// The contents of a file, at most `most` bytes.
    pub(super) fn read(&self, name: &str, most: usize, hint: &str) -> Result<Vec<u8>, UserError> {
        let path = self.path(name);
        match self {
            Tree::Folder(..) => read_file(&path, most, hint),
            Tree::Archive(_, zip, members) => {
                let Some(member) = members.get(name) else {
                    return Err(wrong_file(&path, &"missing in the archive", "a whole archive", hint));
                };
                let bytes = zip.read(member, most as u64);
                bytes.map_err(|error| wrong_file(&path, &error, "a whole member of the archive", hint))
            }
        }
    }
}

/// The length of the longest folder name, with its `/`, that all `names` begin with.
fn common_folder<'a>(mut names: impl Iterator<Item = &'a str>) -> usize {
    let Some(first) = names.next() else { return 0 };
    let mut common = first;
    for name in names {
        let length = common.bytes().zip(name.bytes()).take_while(|(one, other)| one == other).count();
        // Both agree up to there, so that this is a boundary of characters in one where it is in the other.
        let length = (0..=length).rev().find(|&length| first.is_char_boundary(length)).unwrap_or(0);
        common = &first[..length];
    }
    common.rfind('/').map_or(0, |at| at + 1)
}

fn list(folder: &Path, below: &str, depth: usize, files: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{below}{name}");
        // Follows links: data sets are often made of them.
        if fs::metadata(entry.path())?.is_dir() {
            if depth > 1 {
                list(&entry.path(), &format!("{path}/"), depth - 1, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_all_files_is_left_out() {
        for (names, expected) in [
            (&["set/a/x", "set/b/x"][..], 4),
            (&["set/a/x", "set/a/y"], 6),
            (&["a/x", "b/x"], 0),
            (&["set/ä/x", "set/ö/x"], 4),
            (&["alone"], 0),
            (&[], 0),
        ] {
            assert_eq!(common_folder(names.iter().copied()), expected, "{names:?}");
        }
    }
}
