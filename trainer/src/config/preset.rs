//! Presets: whole methods by name, the loss with the attack and the batch norm that belong to it.

use std::path::Path;

use datasets::UserError;
use toml::{Table, Value};

/// The presets, compiled in so that the program needs no files beside it.
const PRESETS: [(&str, &str); 13] = [
    ("st", include_str!("../../../configs/losses/st.toml")),
    ("at", include_str!("../../../configs/losses/at.toml")),
    ("trades", include_str!("../../../configs/losses/trades.toml")),
    ("ard", include_str!("../../../configs/losses/ard.toml")),
    ("ard-orig", include_str!("../../../configs/losses/ard-orig.toml")),
    ("akd2", include_str!("../../../configs/losses/akd2.toml")),
    ("akd2-partial", include_str!("../../../configs/losses/akd2-partial.toml")),
    ("akd2-orig", include_str!("../../../configs/losses/akd2-orig.toml")),
    ("iad-1", include_str!("../../../configs/losses/iad-1.toml")),
    ("iad-1-down", include_str!("../../../configs/losses/iad-1-down.toml")),
    ("iad-2", include_str!("../../../configs/losses/iad-2.toml")),
    ("rslad", include_str!("../../../configs/losses/rslad.toml")),
    ("adaad", include_str!("../../../configs/losses/adaad.toml")),
];

/// The names of the presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// Replaces `loss.preset` by the method: its terms, and its other sections' values for keys that `table` does not set. A
/// preset of the command line also replaces terms of the file.
pub(super) fn insert(table: &mut Table, path: &Path, from_command: bool) -> Result<(), UserError> {
    let Some(loss) = table.get_mut("loss").and_then(Value::as_table_mut) else { return Ok(()) };
    let Some(preset) = loss.remove("preset") else { return Ok(()) };
    let error = |expected: String| UserError::expected(expected).file(path).key("loss.preset").value(&preset);
    if loss.contains_key("terms") && !from_command {
        return Err(error("either a preset or terms, not both".into()).hint(
            "copy the preset's terms from configs/losses/ and change them there, or use --set loss.terms.NAME.KEY=...",
        ));
    }
    let found = PRESETS.iter().find(|(name, _)| Some(*name) == preset.as_str());
    let (_, text) = found.ok_or_else(|| error(format!("one of {}", names().collect::<Vec<_>>().join(", "))))?;
    let mut method: Table = text.parse().unwrap_or_else(|error| unreachable!("presets are tested: {error}"));
    if let Some(terms) = method.remove("terms") {
        loss.insert("terms".into(), terms);
    }
    for (section, defaults) in method {
        let own = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let (Value::Table(own), Value::Table(defaults)) = (own, defaults) {
            for (key, value) in defaults {
                own.entry(key).or_insert(value);
            }
        }
    }
    Ok(())
}
