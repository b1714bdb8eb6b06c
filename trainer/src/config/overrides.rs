//! Changes of a configuration from the command line.

use datasets::UserError;
use toml::{Table, Value};

use super::keys::key_at;

/// One `--set key=value` of the command line.
#[derive(Debug, Clone)]
pub struct Override {
    /// The path of the key, with dots. A list's element is named by its number or its `name`.
    pub key: String,
    /// The value in TOML. Text that is not TOML is a string; an empty text removes the key.
    pub value: String,
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Self { key: key.trim().to_string(), value: value.trim().to_string() })
            }
            _ => Err(format!("expected key=value, as in optimizer.lr=0.05; found {text:?}")),
        }
    }
}

impl Override {
    /// The overrides in a table of keys and values.
    pub(super) fn in_table(table: &Table) -> Vec<Self> {
        fn walk(prefix: &str, table: &Table, changes: &mut Vec<Override>) {
            for (name, value) in table {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                // A policy or a target is one value, although TOML writes it as a table.
                let kind = key_at(&key).map_or("table".to_string(), |key| key.kind);
                match value {
                    Value::Table(inner) if kind == "table" || kind.starts_with("list") => walk(&key, inner, changes),
                    value => changes.push(Override { key, value: value.to_string() }),
                }
            }
        }
        let mut changes = vec![];
        walk("", table, &mut changes);
        changes
    }

    fn parsed(&self) -> Value {
        let line = format!("value = {}", self.value);
        let parsed = line.parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        parsed.unwrap_or_else(|| Value::String(self.value.clone()))
    }

    pub(super) fn apply(&self, table: &mut Table) -> Result<(), UserError> {
        let parts: Vec<&str> = self.key.split('.').collect();
        let (last, path) = parts.split_last().unwrap_or((&"", &[]));
        let mut place = table;
        for part in path {
            // Missing tables are made here. Reading the whole decides whether their keys exist.
            let value = place.entry(*part).or_insert_with(|| Value::Table(Table::new()));
            place = match value {
                Value::Table(table) => table,
                Value::Array(_) => return self.apply_to_list(table_path(&parts, part), value),
                _ => return Err(self.error(format!("a table at {part}, which holds {value}"))),
            };
        }
        if !self.value.is_empty() {
            place.insert((*last).to_string(), self.parsed());
        } else if place.remove(*last).is_none() {
            return Err(self.error("a key that is set, to be removed, or a value for it"));
        }
        Ok(())
    }

    /// Follows the rest of the path through a list of tables, whose elements have numbers and names.
    fn apply_to_list(&self, rest: Vec<&str>, list: &mut Value) -> Result<(), UserError> {
        let Value::Array(elements) = list else { return Ok(()) };
        let removes = self.value.is_empty();
        let Some((element, inner)) = rest.split_first().filter(|(_, inner)| removes || !inner.is_empty()) else {
            return Err(self.error("the number or name of an element and a key of it, as in loss.terms.teach.weight"));
        };
        let names: Vec<String> = elements.iter().map(|value| element_name(value).to_string()).collect();
        let index = element.parse().ok().or_else(|| names.iter().position(|name| name == element));
        match index.filter(|index: &usize| *index < elements.len()) {
            Some(index) if inner.is_empty() => {
                elements.remove(index);
                Ok(())
            }
            Some(index) => match &mut elements[index] {
                Value::Table(table) => Override { key: inner.join("."), value: self.value.clone() }.apply(table),
                other => Err(self.error(format!("a table at {element}, which holds {other}"))),
            },
            None => Err(self
                .error(format!("one of the elements {}", names.join(", ")))
                .did_you_mean(element, names.iter().map(String::as_str))),
        }
    }

    /// The path of its key in `table`, with list elements by number.
    pub(super) fn place_in(&self, table: &Table) -> String {
        let whole = Value::Table(table.clone());
        let mut place = Some(&whole);
        let mut path = vec![];
        for part in self.key.split('.') {
            let index = place.and_then(Value::as_array).and_then(|elements| {
                let named = || elements.iter().position(|element| element_name(element) == part);
                part.parse().ok().or_else(named)
            });
            path.push(index.map_or_else(|| part.to_string(), |index: usize| index.to_string()));
            place = match (place, index) {
                (Some(Value::Array(elements)), Some(index)) => elements.get(index),
                (Some(Value::Table(table)), _) => table.get(part),
                _ => None,
            };
        }
        path.join(".")
    }

    fn error(&self, expected: impl Into<String>) -> UserError {
        UserError::expected(expected).key(format!("--set {}", self.key)).value(&self.value)
    }
}

/// The parts of a path after `part`.
fn table_path<'a>(parts: &[&'a str], part: &str) -> Vec<&'a str> {
    parts.iter().skip_while(|other| **other != part).skip(1).copied().collect()
}

fn element_name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or("?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(text: &str, change: &str) -> Result<Table, UserError> {
        let mut table: Table = text.parse().unwrap();
        change.parse::<Override>().unwrap().apply(&mut table)?;
        Ok(table)
    }

    #[test]
    fn a_table_is_changes_of_single_keys() {
        let table: Table =
            "seed = 2\nattack = { eps = \"4/255\", steps = 3 }\noptimizer.lr_policy = { step = { at = [1] } }\n\
                            loss.terms.label.weight = 2"
                .parse()
                .unwrap();
        let changes: Vec<String> =
            Override::in_table(&table).iter().map(|change| format!("{}={}", change.key, change.value)).collect();
        assert_eq!(
            changes,
            [
                "seed=2",
                "attack.eps=\"4/255\"",
                "attack.steps=3",
                "optimizer.lr_policy={ step = { at = [1] } }",
                "loss.terms.label.weight=2"
            ]
        );
    }

    #[test]
    fn no_value_removes_a_key_or_an_element() {
        let text = "a = 1\nb = { c = 2, d = 3 }\nlist = [{ name = \"x\", v = 1 }, { name = \"y\", v = { w = 2 } }]";
        for (change, left) in [
            ("a=", text.replace("a = 1\n", "")),
            ("b.c=", text.replace("c = 2, ", "")),
            ("b=", text.replace("b = { c = 2, d = 3 }\n", "")),
            ("list.x=", text.replace("{ name = \"x\", v = 1 }, ", "")),
            ("list.0=", text.replace("{ name = \"x\", v = 1 }, ", "")),
            ("list.y.v=", text.replace(", v = { w = 2 }", "")),
            ("list.y.v.w=", text.replace("{ w = 2 }", "{}")),
        ] {
            assert_eq!(changed(text, change).unwrap(), left.parse().unwrap(), "{change}");
        }
        for (change, expected) in [
            ("z=", "a key that is set"),
            ("b.z=", "a key that is set"),
            ("list.z=", "one of the elements x, y"),
            ("list.7=", "one of the elements x, y"),
            ("list.x=1", "the number or name of an element and a key of it"),
        ] {
            let message = changed(text, change).unwrap_err().to_string();
            assert!(message.contains(expected), "{change}: {message}");
        }
    }
}
