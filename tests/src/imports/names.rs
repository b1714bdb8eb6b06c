//! From a path, as a module writes it, to the module that defines the name.

use super::paths::Mention;
use super::tree::{Crate, Module};

/// Imports that lead to imports: more than this many are a circle.
const MOST_STEPS: usize = 16;

impl Crate {
    /// The module that `mention`, written in the module `from`, uses: the one that defines the name, or all of whose names
    /// it imports. `None` for names of other crates, and for modules named alone, whose names are used by longer paths.
    pub(super) fn file_used(&self, from: &[String], mention: &Mention) -> Option<Vec<String>> {
        let name = &mention.segments;
        let whole_module = if mention.glob { self.module(from, name, 0) } else { None };
        whole_module.or_else(|| self.definition(from, name, 0)).or_else(|| {
            // A macro is called by its name alone below its definition, and as `crate::name!` if it is exported.
            let name = name.strip_prefix(&["crate".to_string()]).unwrap_or(name);
            if mention.call && name.len() == 1 { self.macros.get(&name[0]).cloned() } else { None }
        })
    }

    /// The module that defines what `name` means in the module `from`.
    fn definition(&self, from: &[String], name: &[String], steps: usize) -> Option<Vec<String>> {
        let (start, rest) = start(from, name);
        self.member(&start, rest, steps)
    }

    /// The module that defines the path `name` of the module `place`.
    fn member(&self, place: &[String], name: &[String], steps: usize) -> Option<Vec<String>> {
        let module = self.modules.get(place).filter(|_| steps < MOST_STEPS)?;
        let (first, rest) = name.split_first()?;
        let child = [place, std::slice::from_ref(first)].concat();
        if self.modules.contains_key(&child) {
            let found = self.member(&child, rest, steps + 1);
            // A function may have the name of a module: `mod settle; use settle::settle;`.
            return found.or_else(|| if rest.is_empty() { self.imported(place, name, steps) } else { None });
        }
        if module.defines.contains(first) {
            return Some(place.to_vec());
        }
        self.imported(place, name, steps)
    }

    /// As `member`, for a name that an import of `place` brings in.
    fn imported(&self, place: &[String], name: &[String], steps: usize) -> Option<Vec<String>> {
        let module = &self.modules[place];
        let (first, rest) = name.split_first()?;
        if let Some(import) = self.import(place, first) {
            return self.definition(place, &[import, rest].concat(), steps + 1);
        }
        module.globs.iter().find_map(|glob| match self.module(place, glob, steps + 1) {
            Some(other) if other != place => self.member(&other, name, steps + 1),
            _ => None,
        })
    }

    /// The module that the path `name` means in the module `from`, where it is one. Names from `*` are not searched.
    fn module(&self, from: &[String], name: &[String], steps: usize) -> Option<Vec<String>> {
        let (mut place, rest) = start(from, name);
        for (index, segment) in rest.iter().enumerate() {
            let child = [place.as_slice(), std::slice::from_ref(segment)].concat();
            if !self.modules.contains_key(&child) {
                let import = self.import(&place, segment).filter(|_| steps < MOST_STEPS)?;
                return self.module(&place, &[import, &rest[index + 1..]].concat(), steps + 1);
            }
            place = child;
        }
        self.modules.contains_key(&place).then_some(place)
    }

    /// The path that `name` stands for in `place`. A path such as `anyhow::anyhow`, which begins with the name itself,
    /// belongs to another crate unless a module has that name.
    fn import(&self, place: &[String], name: &String) -> Option<&[String]> {
        let module: &Module = self.modules.get(place)?;
        let import = module.imports.get(name)?;
        let itself = import.first() == Some(name);
        let child = [place, std::slice::from_ref(name)].concat();
        let of_child = import.len() > 1 && self.modules.contains_key(&child);
        (!itself || of_child).then_some(import)
    }
}

/// The module where the search for `name`, written in `from`, begins, and the segments to search there.
fn start<'a>(from: &[String], name: &'a [String]) -> (Vec<String>, &'a [String]) {
    let mut place = from.to_vec();
    let mut rest = name;
    match name.first().map(String::as_str) {
        Some("crate") => (place, rest) = (vec![], &name[1..]),
        Some("self") => rest = &name[1..],
        _ => {}
    }
    while rest.first().is_some_and(|segment| segment == "super") {
        place.pop();
        rest = &rest[1..];
    }
    (place, rest)
}
