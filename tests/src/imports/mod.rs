//! Imports between the files of a crate: every `use` and every path, resolved through re-exports to the file that defines
//! the name.
//!
//! `items` reads an item's name and attributes, `paths` the paths of its code, `tree` the modules of a crate. `names`
//! resolves a path to its module, and `order` judges the arrows.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

mod items;
mod names;
mod order;
mod paths;
#[cfg(test)]
mod tests;
mod tree;

pub use order::{loops, upward};

use tree::Crate;

/// One file that uses a name of another file of its crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    /// The file that uses the name, from the crate's source folder.
    pub from: String,
    /// The file that defines it.
    pub to: String,
    /// The name as it is written.
    pub name: String,
    /// The line in `from`, from 1.
    pub line: usize,
}

/// The arrows between the files of the crate whose root file is `root` (`lib.rs` or `main.rs`), without test code. A
/// `pub use` of a folder's own files draws none: it re-exports names and uses none.
///
/// # Errors
/// A file that cannot be read or is not Rust.
pub fn arrows(root: &Path) -> Result<Vec<Arrow>> {
    let all = Crate::read(root)?;
    let mut found = BTreeSet::new();
    for (path, module) in &all.modules {
        for mention in &module.mentions {
            let Some(target) = all.file_used(path, mention) else { continue };
            let to = &all.modules[&target].file;
            let own = mention.shown && target.starts_with(path);
            if !own && *to != module.file {
                let name = mention.segments.join("::");
                found.insert(Arrow { from: module.file.clone(), to: to.clone(), name, line: mention.line });
            }
        }
    }
    Ok(found.into_iter().collect())
}
