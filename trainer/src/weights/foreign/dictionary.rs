//! The dictionaries of tensors in a checkpoint, and which of them is the weights.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use datasets::pickle::Value;

use crate::weights::foreign::measure::Claim;
use crate::weights::foreign::tensors::Described;
use crate::weights::foreign::torch_save::Saved;

/// Where the projects of the field keep a network's state_dict in a checkpoint.
const USUAL: [&str; 4] = ["state_dict", "net", "model", "model_state_dict"];
/// Parts of names by which an accuracy is not that on plain test images.
const OTHER_ACCURACIES: [&str; 7] = ["train", "adv", "rob", "pgd", "attack", "fgsm", "loss"];
/// The key of class names beside weights.
pub const CLASS_NAMES: &str = "class_names";
/// The deepest level of dictionaries that is searched, and the most entries they may have together.
const DEEPEST: usize = 4;
const MOST_ENTRIES: usize = 1 << 18;

/// A dictionary that holds tensors.
#[derive(Debug)]
pub struct Dictionary<'a> {
    /// The keys that lead to it, with dots between them; empty for the outermost.
    pub path: String,
    /// Its tensors, in the order of the file.
    pub tensors: Vec<(String, Described<'a>)>,
    /// The names of its other entries.
    pub others: Vec<String>,
}

impl Dictionary<'_> {
    /// An empty one.
    pub fn new(path: &str) -> Self {
        Self { path: path.to_string(), tensors: vec![], others: vec![] }
    }

    /// Its path, in words.
    pub fn place(&self) -> &str {
        if self.path.is_empty() { "the outermost dictionary" } else { &self.path }
    }
}

/// All dictionaries of the file that hold tensors under names, the outermost first.
///
/// # Errors
/// A tensor that reaches beyond its storage; a name that occurs twice in one dictionary; no tensors at all.
pub fn all<'a>(saved: &Saved<'a>) -> Result<Vec<Dictionary<'a>>> {
    let mut found = vec![];
    let mut level = vec![(String::new(), saved.pickle.root)];
    let mut seen: HashSet<usize> = HashSet::new();
    let mut entries_left = MOST_ENTRIES;
    for _ in 0..DEEPEST {
        let mut next = vec![];
        for (path, value) in level {
            let (Some(entries), Value::Object(number)) = (saved.entries(value), value) else { continue };
            if !seen.insert(number) {
                continue;
            }
            entries_left = entries_left.checked_sub(entries.len()).context("more entries than any checkpoint has")?;
            let mut dictionary = Dictionary::new(&path);
            for (key, value) in entries {
                let Some(name) = key.text() else { continue };
                let within = |path: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                match saved.tensor(value).with_context(|| within(&path))? {
                    Some(tensor) => dictionary.tensors.push((name.to_string(), tensor)),
                    None => {
                        next.push((within(&path), value));
                        dictionary.others.push(name.to_string());
                    }
                }
            }
            let mut names = HashSet::new();
            if let Some((name, _)) = dictionary.tensors.iter().find(|(name, _)| !names.insert(name)) {
                bail!("two tensors are called {name}");
            }
            if !dictionary.tensors.is_empty() {
                found.push(dictionary);
            }
        }
        level = next;
    }
    ensure!(!found.is_empty(), "it holds no dictionary of tensors, as a state_dict is one");
    Ok(found)
}

/// The accuracies on plain images that the file states beside the weights, in percent.
pub fn claims(saved: &Saved) -> Vec<Claim> {
    let entries = saved.entries(saved.pickle.root).unwrap_or_default();
    let claim = |(key, value): (Value, Value)| {
        let (name, Value::Float(value)) = (key.text()?, value) else { return None };
        let lower = name.to_lowercase();
        let plain = lower.contains("acc") && !OTHER_ACCURACIES.iter().any(|other| lower.contains(other));
        let percent = if value <= 1.0 { 100.0 * value } else { value };
        (plain && (0.0..=100.0).contains(&percent)).then(|| Claim { by: name.to_string(), percent })
    };
    entries.into_iter().filter_map(claim).collect()
}

/// The class names of a checkpoint: an attribute of its dictionary, as `weights export` writes them, or an entry beside the
/// weights; empty without them.
pub fn class_names(saved: &Saved) -> Vec<String> {
    let root = saved.pickle.root;
    let state = saved.pickle.made(root).and_then(|made| made.state);
    let entries = [state, Some(root)].into_iter().flatten().filter_map(|value| saved.entries(value)).flatten();
    let named = entries.filter(|(key, _)| key.text() == Some(CLASS_NAMES));
    let lists = named.filter_map(|(_, value)| saved.pickle.elements(value)?.iter().map(|name| name.text()).collect());
    let mut lists = lists.map(|names: Vec<&str>| names.into_iter().map(str::to_string).collect());
    lists.next().unwrap_or_default()
}

/// The dictionary that `key` names; without it, the one under a usual key, else the only one, else the outermost.
///
/// # Errors
/// A message that names the dictionaries there are.
pub fn choose<'a, 'b>(all: &'b [Dictionary<'a>], key: Option<&str>) -> Result<&'b Dictionary<'a>, String> {
    let places: Vec<&str> = all.iter().map(Dictionary::place).collect();
    let there = format!("dictionaries of tensors at {}", places.join(", "));
    if let Some(key) = key {
        return all.iter().find(|one| one.path == key).ok_or(there);
    }
    let usual: Vec<&Dictionary> = all.iter().filter(|one| USUAL.contains(&one.path.as_str())).collect();
    match usual.as_slice() {
        [one] => Ok(one),
        [] => match all {
            [only] => Ok(only),
            _ => all.iter().find(|one| one.path.is_empty()).ok_or(there),
        },
        _ => Err(there),
    }
}
