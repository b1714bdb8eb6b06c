//! The description of a file of weights, in words.

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::weights::foreign::dictionary::Dictionary;
use crate::weights::foreign::fit::{Wanted, fit};
use crate::weights::foreign::import::usual_image;
use crate::weights::foreign::recognise::shortened;
use crate::weights::foreign::{Container, Opened, read_bytes, unreadable};

/// The contents of a file of weights.
#[derive(Debug)]
pub struct Description {
    file: String,
    container: Container,
    dictionaries: Vec<String>,
    class_names: Vec<String>,
}

impl fmt::Display for Description {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.file, self.container)?;
        if let Container::Ours(header) = &self.container {
            match &header.source {
                Some(source) => write!(out, ", imported from {} (SHA-256 {})", source.file, source.sha256)?,
                None => write!(out, " after {} steps", header.progress.step)?,
            }
            write!(out, "\nnetwork: {}", header.form)?;
        }
        if !self.class_names.is_empty() {
            write!(out, "\nclasses: {}", shortened(&self.class_names))?;
        }
        self.dictionaries.iter().try_for_each(|dictionary| write!(out, "\n{dictionary}"))
    }
}

/// Describes a file of weights: its kind, its dictionaries of tensors, and the network of each.
///
/// # Errors
/// A [`UserError`](datasets::UserError) for a file that is missing or holds no weights.
pub fn describe(file: &Path) -> Result<Description> {
    let bytes = read_bytes(file)?;
    let opened = Opened::read(&bytes).map_err(|problem| unreadable(file, &problem))?;
    let ours = matches!(opened.container, Container::Ours(_));
    let dictionaries = opened.dictionaries.iter().map(|dictionary| line(dictionary, !ours)).collect();
    let Opened { container, class_names, .. } = opened;
    Ok(Description { file: file.display().to_string(), container, dictionaries, class_names })
}

fn line(dictionary: &Dictionary, guess: bool) -> String {
    let tensors = &dictionary.tensors;
    let values: usize = tensors.iter().map(|(_, tensor)| tensor.count()).sum();
    let mut kinds: Vec<String> = tensors.iter().map(|(_, tensor)| format!("{:?}", tensor.kind)).collect();
    kinds.sort();
    kinds.dedup();
    let kinds = kinds.join(" and ");
    let mut line = format!("{}: {} tensors, {values} values, {kinds}", dictionary.place(), tensors.len());
    if guess {
        line += &match fit(dictionary, &Wanted::default(), usual_image) {
            Ok(fitted) => {
                let counted = format!("{} of {} classes", fitted.form.architecture, fitted.form.classes);
                let notes: String = fitted.notes.iter().map(|note| format!("\n  {note}")).collect();
                format!("\n  {counted}, {} parameters{notes}", fitted.parameters())
            }
            Err(problem) => format!("\n  not recognised: {problem}"),
        };
    }
    line
}
