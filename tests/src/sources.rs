//! A scan of sources and manifests for forbidden words. It reads words, not Rust, and ignores comments.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Words and the places where they are forbidden.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The rule in a sentence.
    pub says: &'static str,
    /// Whole words (`tch` is not in `batch`), or pieces of code that begin or end with one.
    pub words: &'static [&'static str],
    /// The files and folders where they are looked for.
    pub within: &'static [&'static str],
    /// The files and folders among those where they are allowed.
    pub except: &'static [&'static str],
    /// Whether tests beside the code are free of the rule.
    pub spares_tests: bool,
}

/// A forbidden word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, from the root of the repository.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The word.
    pub word: &'static str,
}

impl Rule {
    /// Where `text`, the contents of `file`, breaks this rule.
    pub fn scan(&self, file: &str, text: &str) -> Vec<Finding> {
        let applies = self.within.iter().any(|place| is_in(file, place));
        let spared = self.spares_tests && file.ends_with("/tests.rs");
        if !applies || spared || self.except.iter().any(|place| is_in(file, place)) {
            return vec![];
        }
        let manifest = file.ends_with(".toml");
        let mut found = vec![];
        // Tests are at the end of a file.
        let counts = |line: &&str| !(self.spares_tests && line.trim() == "#[cfg(test)]");
        for (number, line) in text.lines().take_while(counts).enumerate() {
            let code = if manifest { manifest_code(line) } else { source_code(line) };
            for &word in self.words.iter().filter(|word| holds(code, word)) {
                found.push(Finding { file: file.to_string(), line: number + 1, word });
            }
        }
        found
    }
}

/// Where the sources, build scripts and manifests below `root` break `rule`.
///
/// # Errors
/// A failure of the file system; a place of the rule that does not exist.
pub fn find(root: &Path, rule: &Rule) -> Result<Vec<Finding>> {
    let mut found = vec![];
    for place in rule.within {
        let mut waiting = vec![root.join(place)];
        while let Some(path) = waiting.pop() {
            let context = || format!("{}, a place of the rule {:?}", path.display(), rule.says);
            if path.is_dir() {
                for entry in fs::read_dir(&path).with_context(context)? {
                    waiting.push(entry?.path());
                }
            } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "toml") {
                let text = fs::read_to_string(&path).with_context(context)?;
                let file = path.strip_prefix(root)?.to_string_lossy();
                found.extend(rule.scan(&file, &text));
            } else {
                // A folder that was renamed must not switch its rule off.
                fs::metadata(&path).with_context(context)?;
            }
        }
    }
    Ok(found)
}

/// Whether `file` is `place` or lies in it.
fn is_in(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || place.ends_with('/'))
}

fn source_code(line: &str) -> &str {
    let code = line.split(" //").next().unwrap_or("");
    if code.trim_start().starts_with("//") { "" } else { code }
}

fn manifest_code(line: &str) -> &str {
    // A description may speak of what its crate does not know.
    if line.starts_with("description") { "" } else { line.split('#').next().unwrap_or("") }
}

/// Whether `code` holds `word` between characters that do not belong to it.
fn holds(code: &str, word: &str) -> bool {
    let part_of_name = |character: Option<char>| character.is_some_and(|one| one.is_alphanumeric() || one == '_');
    let begins_name = part_of_name(word.chars().next());
    let ends_name = part_of_name(word.chars().next_back());
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let continued = begins_name && part_of_name(before) || ends_name && part_of_name(after);
        !continued
    })
}
