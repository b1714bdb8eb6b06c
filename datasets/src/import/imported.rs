//! The result of an importer, and errors about its files.

use std::fmt::Display;
use std::io::{self, Read as _};
use std::path::Path;

use super::left_out::LeftOut;
use crate::formats::recognise::kind_of_file;
use crate::ground::error::UserError;
use crate::ground::regular::{in_words, open_regular};
use crate::ground::source::Source;
use crate::schema::about::Coarse;

/// The result of an importer.
pub(super) struct Imported {
    /// Origin of the images, for the `source` of the file.
    pub(super) source: String,
    /// The address of the images; empty if there is none.
    pub(super) url: &'static str,
    pub(super) coarse: Option<Coarse>,
    pub(super) train: Box<dyn Source>,
    pub(super) test: Option<Box<dyn Source>>,
    /// Files that were not taken, and why.
    pub(super) left_out: LeftOut,
    /// Whether images must be read in order, by one thread.
    pub(super) in_order: bool,
}

impl Imported {
    /// A training split alone, of which nothing was left out.
    pub(super) fn new(source: impl Into<String>, url: &'static str, train: Box<dyn Source>) -> Self {
        let (coarse, test, left_out) = (None, None, LeftOut::default());
        Self { source: source.into(), url, coarse, train, test, left_out, in_order: false }
    }
}

/// The error of an unexpected file.
pub(super) fn wrong_file(path: &Path, found: &dyn Display, expected: &str, hint: &str) -> UserError {
    UserError::expected(expected).file(path).key("the file").value(format!("{found:#}")).hint(hint)
}

/// The error of a file that cannot be read as `format`: names its kind if the first bytes show it.
pub(super) fn wrong_archive(path: &Path, format: &str, error: &anyhow::Error, expected: &str, hint: &str) -> UserError {
    let mut start = Vec::new();
    // A file that cannot be read is named by `error`.
    let _ = open_regular(path).and_then(|file| file.take(512).read_to_end(&mut start));
    match kind_of_file(&start).filter(|kind| path.is_file() && kind.name != format) {
        Some(kind) => {
            let found = format!("{} ({error:#})", kind.name);
            let hint = kind.hint.map_or(hint.to_owned(), |first| format!("{first}; or {hint}"));
            wrong_file(path, &found, expected, &hint)
        }
        None => match error.downcast_ref::<io::Error>() {
            // An error that was met on the way says where.
            Some(error) if error.raw_os_error().is_some() => wrong_file(path, &in_words(error), expected, hint),
            _ => wrong_file(path, error, expected, hint),
        },
    }
}
