//! What a file of weights is, in words.

use std::fmt;
use std::path::Path;

use anyhow::Result;

use super::dictionary::Dictionary;
use super::import::usual_image;
use super::recognise::fit;
use super::{Container, Opened, read_bytes, unreadable};

/// What a file of weights holds.
#[derive(Debug)]
pub struct Description {
    file: String,
    container: Container,
    dictionaries: Vec<String>,
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
        self.dictionaries.iter().try_for_each(|dictionary| write!(out, "\n{dictionary}"))
    }
}

/// Says what a file of weights is: its kind, its dictionaries of tensors, and the network of each.
///
/// # Errors
/// A [`UserError`](datasets::UserError) for a file that is missing or holds no weights.
pub fn describe(file: &Path) -> Result<Description> {
    let bytes = read_bytes(file)?;
    let opened = Opened::read(&bytes).map_err(|problem| unreadable(file, &problem))?;
    let ours = matches!(opened.container, Container::Ours(_));
    let dictionaries = opened.dictionaries.iter().map(|dictionary| line(dictionary, !ours)).collect();
    Ok(Description { file: file.display().to_string(), container: opened.container, dictionaries })
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
        line += &match fit(dictionary, None, usual_image) {
            Ok(fitted) => {
                let counted = format!("{} of {} classes", fitted.form.architecture, fitted.form.classes);
                format!("\n  {counted}, {} parameters", fitted.parameters())
            }
            Err(problem) => format!("\n  no network of this program: {problem}"),
        };
    }
    line
}
