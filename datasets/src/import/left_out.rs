//! Files that an import leaves out, each with the reason.

use std::collections::BTreeMap;
use std::fmt;

pub(super) const HIDDEN: &str = "hidden: a name that begins with a dot";
pub(super) const SYSTEM: &str = "metadata of macOS or Windows";
pub(super) const NOT_UTF8: &str = "a name that is not UTF-8: rename it to take it";
pub(super) const NO_IMAGE: &str = "neither JPEG nor PNG by its name";
pub(super) const OTHER_FORMAT: &str = "a picture of another format than JPEG and PNG: convert it to take it";
pub(super) const NO_CLASS: &str = "not in the folder of a class";

/// Files and folders that an import leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    by_reason: BTreeMap<String, Vec<String>>,
}

impl LeftOut {
    /// Adds the file or folder `name`.
    pub(super) fn add(&mut self, reason: &str, name: impl Into<String>) {
        // Most reasons are known already.
        match self.by_reason.get_mut(reason) {
            Some(names) => names.push(name.into()),
            None => drop(self.by_reason.insert(reason.to_owned(), vec![name.into()])),
        }
    }

    /// The reasons, each with the paths of all files and folders left out for it.
    pub fn reasons(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.by_reason.iter().map(|(reason, names)| (&reason[..], &names[..]))
    }

    /// How many files and folders are left out.
    pub fn count(&self) -> usize {
        self.by_reason.values().map(Vec::len).sum()
    }

    /// The paths left out for `reason`.
    pub(super) fn of(&self, reason: &str) -> &[String] {
        self.by_reason.get(reason).map_or(&[], |names| names)
    }
}

impl fmt::Display for LeftOut {
    /// A line for each reason, with the first names.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (reason, names)) in self.reasons().enumerate() {
            let separator = if number > 0 { "\n" } else { "" };
            write!(out, "{separator}left out: {} ({reason}): {}", names.len(), some(names))?;
        }
        Ok(())
    }
}

/// The first few of many names.
pub(super) fn some(names: &[String]) -> String {
    const FEW: usize = 3;
    let first = names[..names.len().min(FEW)].join(", ");
    if names.len() > FEW { format!("{first}, ...") } else { first }
}

/// Whether the operating system, not a person, has put `part` of a path there.
pub(super) fn is_system(part: &str) -> bool {
    let known = ["__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", ".Spotlight-V100", ".Trashes", ".fseventsd"];
    part.starts_with("._") || known.contains(&part)
}

/// Why a file called `name` is no image for an import, or none if it is one by its ending.
pub(super) fn why_no_image(name: &str) -> Option<&'static str> {
    const OTHERS: [&str; 13] =
        ["webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "jfif", "heic", "heif", "avif", "jp2", "jxl"];
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    match &ending[..] {
        "jpeg" | "jpg" | "png" => None,
        other if OTHERS.contains(&other) => Some(OTHER_FORMAT),
        _ => Some(NO_IMAGE),
    }
}
