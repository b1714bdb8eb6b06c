//! What differs between the configurations of two starts of a run, and whether the run may be resumed all the same.

use toml::{Table, Value};

use crate::config::RunConfig;

/// A key whose value changes when a run is resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The dotted key.
    pub key: String,
    /// Its value before, in TOML, or `nothing`.
    pub before: String,
    /// Its value now.
    pub now: String,
}

impl Change {
    /// Whether a finished run has more to do with it: more epochs, or another evaluation.
    pub fn asks_for_more(&self) -> bool {
        self.key == "epochs" || self.key.starts_with("evaluation.")
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} = {} there, {} now", self.key, self.before, self.now)
    }
}

/// The keys that change from `before` to `now`, apart from those that no checkpoint depends on (`comm`, recorded steps). With
/// `inputs_known`, the contents of the inputs are compared elsewhere, and their paths may change.
///
/// # Errors
/// Those among them that may not change in a run, with the reason.
pub fn changes(before: &RunConfig, now: &RunConfig, inputs_known: bool) -> Result<Vec<Change>, Vec<String>> {
    let (one, other) = (flat(&before.lasting()), flat(&now.lasting()));
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
    let side = |table: &Table, key: &String| table.get(key).map_or("nothing".to_string(), ToString::to_string);
    let mut refused = vec![];
    let mut found = vec![];
    for key in keys.filter(|key| one.get(*key) != other.get(*key)) {
        let change = Change { key: key.clone(), before: side(&one, key), now: side(&other, key) };
        match before.may_change(key, now, inputs_known) {
            Ok(()) => found.push(change),
            Err(reason) => refused.push(format!("{change} ({reason})")),
        }
    }
    if refused.is_empty() { Ok(found) } else { Err(refused) }
}

/// The configuration as one table from dotted keys to values.
pub fn flat(config: &RunConfig) -> Table {
    fn walk(prefix: &str, table: &Table, into: &mut Table) {
        for (key, value) in table {
            let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            match value {
                Value::Table(inner) => walk(&key, inner, into),
                // Lists of tables by their elements' names, so that a difference is shown alone.
                Value::Array(list) if list.iter().all(Value::is_table) => {
                    for (index, element) in list.iter().enumerate() {
                        let name =
                            element.get("name").and_then(Value::as_str).map_or(index.to_string(), str::to_string);
                        element.as_table().into_iter().for_each(|inner| walk(&format!("{key}.{name}"), inner, into));
                    }
                }
                value => drop(into.insert(key, value.clone())),
            }
        }
    }
    let mut into = Table::new();
    walk("", &config.resolved().parse().unwrap_or_default(), &mut into);
    into
}
