//! `iad-launch config`, `completions` and `man`: what the program knows of its own keys and options.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use datasets::UserError;
use trainer::config::{Key, RunConfig, keys};

use crate::command::{CommandLine, Completions, Config, Man};
use crate::console::Out;

/// The name that people type.
const PROGRAM: &str = "iad-launch";

/// Prints a configuration with everything written out, or every key there is.
///
/// # Errors
/// A mistake in the configuration; the terminal cannot be written to.
pub(crate) fn config(command: &Config) -> Result<()> {
    let text = match &command.config {
        Some(path) => {
            let config = RunConfig::read(path, &command.overrides)?;
            if command.json { serde_json::to_string_pretty(&config)? + "\n" } else { config.resolved() }
        }
        None if command.json => serde_json::to_string_pretty(&keys())? + "\n",
        None => keys().iter().map(key_text).collect(),
    };
    write!(Out, "{text}").context("writing to the terminal")
}

/// `epochs (integer, required; 1 to 1,000,000)` and its meaning.
fn key_text(key: &Key) -> String {
    let default =
        if key.default.starts_with("required") { key.default.clone() } else { format!("default {}", key.default) };
    let mut text = format!("{} ({}, {default}", key.path, key.kind);
    if !key.range.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {}", key.range);
    }
    text + &format!(")\n    {}\n", key.meaning)
}

/// Prints the completions of a shell.
///
/// # Errors
/// The terminal cannot be written to.
pub(crate) fn completions(command: &Completions) -> Result<()> {
    let mut script = vec![];
    clap_complete::generate(command.shell, &mut CommandLine::command(), PROGRAM, &mut script);
    Out.write_all(&script).context("writing to the terminal")
}

/// Prints the manual page of the program, or writes those of all commands.
///
/// # Errors
/// The folder or the terminal cannot be written to.
pub(crate) fn man(command: &Man) -> Result<()> {
    let line = CommandLine::command().name(PROGRAM);
    match &command.to {
        None => Ok(clap_mangen::Man::new(line).render(&mut Out)?),
        Some(folder) if !folder.is_dir() => {
            let hint = format!("mkdir -p '{}'", folder.display());
            Err(UserError::expected("an existing folder").file(folder).key("--to").hint(hint).into())
        }
        Some(folder) => {
            clap_mangen::generate_to(line, folder).with_context(|| format!("writing pages to {}", folder.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_with_type_default_range_and_meaning() {
        let all = keys();
        let text = |path: &str| key_text(all.iter().find(|key| key.path == path).unwrap());
        assert_eq!(text("seed"), "seed (integer, default 1; 0 or more)\n    the seed of every random number\n");
        assert!(text("epochs").starts_with("epochs (integer, required; 1 to 1,000,000)\n"));
    }
}
