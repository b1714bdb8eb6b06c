//! The modules of a crate, read from its files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use syn::visit::Visit as _;
use syn::{Item, ItemMod};

use super::items::{attributes, defined, is_test};
use super::paths::{Mention, Paths, imports};

/// A module: a file, or a part of one in braces.
#[derive(Default)]
pub(super) struct Module {
    pub(super) file: String,
    /// Names defined here, modules among them.
    pub(super) defines: BTreeSet<String>,
    /// Names that a `use` brings in, and the paths as they are written there.
    pub(super) imports: BTreeMap<String, Vec<String>>,
    /// Modules and enums whose names a `use ..::*` brings in, as they are written.
    pub(super) globs: Vec<Vec<String>>,
    /// All paths of the code.
    pub(super) mentions: Vec<Mention>,
}

/// The modules of a crate by their paths.
pub(super) struct Crate {
    pub(super) modules: BTreeMap<Vec<String>, Module>,
    /// The modules that define macros by `macro_rules!`, whose names need no path.
    pub(super) macros: BTreeMap<String, Vec<String>>,
}

/// A file to read: the folder of all sources, the file in it, and the folder of its child modules.
#[derive(Clone, Copy)]
struct Source<'a> {
    all: &'a Path,
    file: &'a Path,
    children: &'a Path,
}

impl Crate {
    /// Reads the crate of a root file, without test code.
    ///
    /// # Errors
    /// A file that cannot be read or is not Rust.
    pub(super) fn read(root: &Path) -> Result<Self> {
        let all = root.parent().context("a root file has a folder")?;
        let mut found = Self { modules: BTreeMap::new(), macros: BTreeMap::new() };
        found.file(Source { all, file: root, children: all }, vec![])?;
        Ok(found)
    }

    fn file(&mut self, source: Source, path: Vec<String>) -> Result<()> {
        let text = fs::read_to_string(source.file).with_context(|| format!("reading {}", source.file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("parsing {}", source.file.display()))?;
        // `#![cfg(test)]` makes a whole file test code.
        let items = if is_test(&parsed.attrs) { &[] } else { parsed.items.as_slice() };
        self.items(source, path, items)
    }

    fn items(&mut self, source: Source, path: Vec<String>, items: &[Item]) -> Result<()> {
        let file = source.file.strip_prefix(source.all)?.to_string_lossy().into_owned();
        let mut module = Module { file, ..Module::default() };
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            module.defines.extend(defined(item));
            match item {
                Item::Mod(child) => self.child(source, &path, child)?,
                Item::Use(used) => {
                    for import in imports(used) {
                        let segments = import.mention.segments.clone();
                        match import.alias {
                            Some(alias) => drop(module.imports.insert(alias, segments)),
                            None => module.globs.push(segments),
                        }
                        module.mentions.push(import.mention);
                    }
                }
                other => {
                    if let Item::Macro(rules) = other {
                        self.macros.extend(rules.ident.iter().map(|name| (name.to_string(), path.clone())));
                    }
                    Paths { found: &mut module.mentions }.visit_item(other);
                }
            }
        }
        self.modules.insert(path, module);
        Ok(())
    }

    fn child(&mut self, source: Source, parent: &[String], child: &ItemMod) -> Result<()> {
        let name = child.ident.to_string();
        let path = [parent, std::slice::from_ref(&name)].concat();
        let children = &source.children.join(&name);
        if let Some((_, items)) = &child.content {
            return self.items(Source { children, ..source }, path, items);
        }
        let candidates = [source.children.join(format!("{name}.rs")), children.join("mod.rs")];
        match candidates.iter().find(|candidate| candidate.is_file()) {
            Some(file) => self.file(Source { file, children, ..source }, path),
            None => bail!("{} declares the module {name}, which has no file", source.file.display()),
        }
    }
}
