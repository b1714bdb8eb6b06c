//! Many small files by their paths: in a folder, or in a zip archive that is never unpacked to the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;

use super::files::read_file;
use super::imported::{wrong_archive, wrong_file};
use super::left_out::{HIDDEN, LeftOut, NOT_UTF8, SYSTEM, is_system};
use crate::formats::recognise::ZIP;
use crate::formats::zip::{Member, Zip};
use crate::ground::error::UserError;
use crate::ground::regular::{in_words, open_regular};

/// An archive and its members by their paths.
type Archive = (Zip<Arc<File>>, BTreeMap<String, Member>);

/// Files by their paths below a root, with `/` between the parts.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// The archive, where the root is one. Folders around everything are missing from the paths of its files.
    archive: Option<Archive>,
    /// In ascending order.
    files: Vec<String>,
    /// All folders, also empty ones.
    pub(super) folders: BTreeSet<String>,
    /// Files and folders below the root that no import takes.
    pub(super) left_out: LeftOut,
}

impl Tree {
    /// Lists the files below the folder `from` or in the zip archive `from`. `hint` is the next step after a failure.
    pub(super) fn open(from: &Path, hint: &str) -> Result<Self, UserError> {
        let mut tree = Self {
            root: from.to_owned(),
            archive: None,
            files: vec![],
            folders: BTreeSet::new(),
            left_out: LeftOut::default(),
        };
        if from.is_file() {
            let zip = open_regular(from).map_err(anyhow::Error::from).and_then(|file| Zip::open(Arc::new(file)));
            let zip = zip.map_err(|error| wrong_archive(from, ZIP, &error, "a folder or a whole zip archive", hint))?;
            tree.list_archive(zip);
        } else {
            let around = fs::metadata(from).map(|metadata| vec![identity(&metadata)]).unwrap_or_default();
            let listed = tree.list_folder(from, "", &mut { around });
            listed.map_err(|(path, error)| wrong_file(&path, &in_words(&error), "a readable folder", hint))?;
        }
        tree.files.sort_unstable();
        Ok(tree)
    }

    /// The paths of all files, in ascending order.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// The path of the file `name` in messages.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Whether the file `name` exists.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.binary_search_by(|file| file.as_str().cmp(name)).is_ok()
    }

    /// The contents of a file, at most `most` bytes.
    pub(super) fn read(&self, name: &str, most: usize, hint: &str) -> Result<Vec<u8>, UserError> {
        let path = self.path(name);
        let Some((zip, members)) = &self.archive else { return read_file(&path, most, hint) };
        let Some(member) = members.get(name) else {
            return Err(wrong_file(&path, &"missing in the archive", "a whole archive", hint));
        };
        let bytes = zip.read(member, most as u64);
        bytes.map_err(|error| wrong_file(&path, &error, "a whole member of the archive", hint))
    }

    fn list_archive(&mut self, zip: Zip<Arc<File>>) {
        let clean = |name: &str| name.strip_prefix("./").unwrap_or(name).to_owned();
        let (mut taken, mut folders) = (Vec::new(), Vec::new());
        for member in &zip.members {
            let name = clean(&member.name);
            folders.extend(name.match_indices('/').map(|(at, _)| name[..at].to_owned()));
            match why_not(&name) {
                Some(reason) => self.left_out.add(reason, name),
                None => taken.push((name, member.clone())),
            }
        }
        for name in zip.not_utf8.iter().map(|name| clean(name)) {
            folders.extend(name.match_indices('/').map(|(at, _)| name[..at].to_owned()));
            self.left_out.add(NOT_UTF8, name);
        }
        folders.extend(zip.folders.iter().map(|name| clean(name)));
        // A folder whose files are all left out still counts as a folder.
        folders.retain(|name| !name.is_empty() && why_not(name).is_none() && !name.contains('\u{fffd}'));
        let entries: Vec<String> = folders.iter().map(|name| format!("{name}/")).collect();
        let root = common_folder(taken.iter().map(|(name, _)| &name[..]).chain(entries.iter().map(String::as_str)));
        self.folders = folders.iter().filter_map(|name| name.get(root..)).map(str::to_owned).collect();
        self.folders.remove("");
        let mut members = BTreeMap::new();
        for (name, member) in taken {
            if let Some(first) = members.insert(name[root..].to_owned(), member) {
                self.left_out.add("a second file of that path in the archive", first.name);
            }
        }
        self.files = members.keys().cloned().collect();
        self.archive = Some((zip, members));
    }

    /// Lists `folder`, whose path below the root is `below`. `around` are the identities of the folders around it.
    fn list_folder(
        &mut self,
        folder: &Path,
        below: &str,
        around: &mut Vec<(u64, u64)>,
    ) -> Result<(), (PathBuf, io::Error)> {
        let failed = |error| (folder.to_owned(), error);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let shown = format!("{below}{}", name.to_string_lossy());
            // Follows links: data sets are often made of them.
            let Ok(metadata) = fs::metadata(entry.path()) else {
                self.left_out.add("a link to nothing, or a file that may not be looked at", shown);
                continue;
            };
            if metadata.is_dir() {
                if around.contains(&identity(&metadata)) {
                    self.left_out.add("a link to a folder around it", shown);
                    continue;
                }
                around.push(identity(&metadata));
                // What lies in folders that are not taken is named file by file.
                self.list_folder(&entry.path(), &format!("{shown}/"), around)?;
                around.pop();
            }
            let reason = if shown.contains('\u{fffd}') { Some(NOT_UTF8) } else { why_not(&shown) };
            match reason {
                Some(reason) if metadata.is_file() => self.left_out.add(reason, shown),
                Some(_) => {}
                None if metadata.is_dir() => drop(self.folders.insert(shown)),
                None if metadata.is_file() => self.files.push(shown),
                None => self.left_out.add("neither a file nor a folder", shown),
            }
        }
        Ok(())
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// The reason to leave out the path `name`, by its parts alone.
fn why_not(name: &str) -> Option<&'static str> {
    let mut parts = name.split('/');
    if parts.clone().any(is_system) {
        return Some(SYSTEM);
    }
    parts.any(|part| part.starts_with('.') && part != "." && part != "..").then_some(HIDDEN)
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
