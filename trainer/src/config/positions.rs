//! The line of each key in a configuration file.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// The line of every key, by its path: `optimizer.lr`, `loss.terms.0.weight`.
pub(super) struct Positions {
    lines: BTreeMap<String, usize>,
}

impl Positions {
    /// The positions of the keys in `text`; none if it is not TOML.
    pub(super) fn of(text: &str) -> Self {
        let mut lines = BTreeMap::new();
        if let Ok(table) = DeTable::parse(text) {
            collect(text, table.get_ref(), "", &mut lines);
        }
        Self { lines }
    }

    /// The line of the key at `path`, from 1. A key that the file lacks gets the line of its table.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = path.rsplit_once('.')?.0;
        }
    }
}

fn collect(text: &str, table: &DeTable, path: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let place = joined(path, key.get_ref());
        lines.insert(place.clone(), line_of(text, key.span().start));
        descend(text, value.get_ref(), &place, lines);
    }
}

fn descend(text: &str, value: &DeValue, path: &str, lines: &mut BTreeMap<String, usize>) {
    match value {
        DeValue::Table(table) => collect(text, table, path, lines),
        DeValue::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                let place = joined(path, &index.to_string());
                lines.insert(place.clone(), line_of(text, element.span().start));
                descend(text, element.get_ref(), &place, lines);
            }
        }
        _ => {}
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

/// The line of the byte at `offset`, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_two_tables_has_two_lines() {
        let text = "epochs = 2\n[checkpoint]\nevery = 1\n\n[metrics]\n# every = 3\nevery = -1\n[loss]\nterms = [\n  { name = \"a\" },\n  { name = \"b\" },\n]\n";
        let positions = Positions::of(text);
        let line = |path: &str| positions.line(path);
        assert_eq!((line("checkpoint.every"), line("metrics.every"), line("epochs")), (Some(3), Some(7), Some(1)));
        assert_eq!(
            (line("loss.terms.0.name"), line("loss.terms.1.name"), line("loss.terms.1.of")),
            (Some(10), Some(11), Some(11))
        );
        assert_eq!((line("metrics.other"), line("nothing")), (Some(5), None));
    }
}
