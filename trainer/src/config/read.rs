//! From a file and overrides to a configuration, with errors that name file, line, key and the known ones.

use std::path::Path;

use anyhow::Result;
use datasets::UserError;
use toml::{Table, Value};

use super::RunConfig;

/// The loss presets, compiled in so that the program needs no files beside it.
const PRESETS: [(&str, &str); 7] = [
    ("st", include_str!("../../../configs/losses/st.toml")),
    ("at", include_str!("../../../configs/losses/at.toml")),
    ("ard", include_str!("../../../configs/losses/ard.toml")),
    ("akd2", include_str!("../../../configs/losses/akd2.toml")),
    ("trades", include_str!("../../../configs/losses/trades.toml")),
    ("iad-2", include_str!("../../../configs/losses/iad-2.toml")),
    ("iad-1", include_str!("../../../configs/losses/iad-1.toml")),
];

/// The names of the loss presets, for messages.
fn preset_names() -> String {
    PRESETS.map(|(name, _)| name).join(", ")
}

/// One `--set key=value` of the command line.
#[derive(Debug, Clone)]
pub struct Override {
    /// The path of the key, with dots; a list's element by its number or its `name`.
    pub key: String,
    /// The value in TOML; text that is not TOML counts as a string.
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
    fn parsed(&self) -> Value {
        let line = format!("value = {}", self.value);
        let parsed = line.parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        parsed.unwrap_or_else(|| Value::String(self.value.clone()))
    }

    fn apply(&self, table: &mut Table) -> Result<(), UserError> {
        let parts: Vec<&str> = self.key.split('.').collect();
        let (last, path) = parts.split_last().unwrap_or((&"", &[]));
        let mut place = table;
        for part in path {
            // Missing tables are made: whether their keys exist is decided when the whole is read.
            let value = place.entry(*part).or_insert_with(|| Value::Table(Table::new()));
            place = match value {
                Value::Table(table) => table,
                Value::Array(_) => return self.apply_to_list(table_path(&parts, part), value),
                _ => return Err(self.error(format!("a table at {part}, which holds {value}"))),
            };
        }
        place.insert((*last).to_string(), self.parsed());
        Ok(())
    }

    /// The rest of the path goes through a list of tables, whose elements have numbers and names.
    fn apply_to_list(&self, rest: Vec<&str>, list: &mut Value) -> Result<(), UserError> {
        let elements = list.as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
        let Some((element, inner)) = rest.split_first().filter(|(_, inner)| !inner.is_empty()) else {
            return Err(self.error("the number or name of an element and a key of it, as in loss.terms.teach.weight"));
        };
        let names: Vec<String> = elements.iter().map(|value| element_name(value).to_string()).collect();
        let index = element.parse().ok().or_else(|| names.iter().position(|name| name == element));
        match index.and_then(|index: usize| elements.get_mut(index)) {
            Some(Value::Table(table)) => Override { key: inner.join("."), value: self.value.clone() }.apply(table),
            _ => Err(self.error(format!("one of the elements {}", names.join(", ")))),
        }
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

impl RunConfig {
    /// Reads `path`, replaces a loss preset by its terms, applies `overrides`, and checks every value that can be checked
    /// without the data.
    ///
    /// # Errors
    /// A [`UserError`] that names the file, the key, its value and what was expected.
    pub fn read(path: &Path, overrides: &[Override]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            UserError::expected("a readable configuration file")
                .file(path)
                .value(if error.kind() == std::io::ErrorKind::NotFound {
                    "nothing there".into()
                } else {
                    error.to_string()
                })
                .hint("examples stand in configs/; `iad-launch --help` lists the commands")
        })?;
        Self::parse(&text, path, overrides)
    }

    /// [`read`](Self::read) for a text that came from `path`.
    ///
    /// # Errors
    /// As `read`.
    pub fn parse(text: &str, path: &Path, overrides: &[Override]) -> Result<Self> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            UserError::expected(format!("valid TOML ({})", error.message())).file(path).key(format!("line {line}"))
        })?;
        // A preset is chosen before other overrides change its terms.
        let (presets, others): (Vec<_>, Vec<_>) = overrides.iter().partition(|change| change.key == "loss.preset");
        let apply = |change: &&Override, table: &mut Table| change.apply(table).map_err(|error| error.file(path));
        presets.iter().try_for_each(|change| apply(change, &mut table))?;
        insert_preset(&mut table, path, !presets.is_empty())?;
        others.iter().try_for_each(|change| apply(change, &mut table))?;
        let config: Self = serde_path_to_error::deserialize(table).map_err(|error| {
            let message = error.inner().message().to_string();
            let mut key = error.path().to_string();
            if key == "." {
                key = "the file".to_string();
            }
            let named = message.split('`').nth(1).filter(|_| message.starts_with("unknown field"));
            let (key, line) = match named {
                Some(field) if key == "the file" => (field.to_string(), line_of_key(text, field)),
                Some(field) if key.ends_with(field) => (key.clone(), line_of_key(text, field)),
                Some(field) => (format!("{key}.{field}"), line_of_key(text, field)),
                None => (key.clone(), key.rsplit('.').next().and_then(|last| line_of_key(text, last))),
            };
            let place = line.map_or(String::new(), |line| format!(" (line {line})"));
            let from_command = overrides.iter().any(|change| change.key == key);
            let place = if from_command { " (from --set)".to_string() } else { place };
            UserError::expected(expectation(&message))
                .file(path)
                .key(format!("{key}{place}"))
                .hint("docs/configuration.md lists every key with its meaning")
        })?;
        config.check().map_err(|error| error.file(path))?;
        Ok(config)
    }
}

/// Replaces `loss.preset` by the preset's terms. One of the command line also replaces terms of the file.
fn insert_preset(table: &mut Table, path: &Path, from_command: bool) -> Result<(), UserError> {
    let Some(loss) = table.get_mut("loss").and_then(Value::as_table_mut) else { return Ok(()) };
    let Some(preset) = loss.remove("preset") else { return Ok(()) };
    let error = |expected: String| UserError::expected(expected).file(path).key("loss.preset").value(&preset);
    if loss.contains_key("terms") && !from_command {
        return Err(error("either a preset or terms, not both".into()).hint(
            "copy the preset's terms from configs/losses/ and change them there, or use --set loss.terms.NAME.KEY=...",
        ));
    }
    let found = PRESETS.iter().find(|(name, _)| Some(*name) == preset.as_str());
    let (_, text) = found.ok_or_else(|| error(format!("one of {}", preset_names())))?;
    let terms = text.parse::<Table>().ok().and_then(|mut preset| preset.remove("terms"));
    loss.insert("terms".into(), terms.unwrap_or_else(|| unreachable!("presets are compiled in and tested")));
    Ok(())
}

/// Turns serde's message, or one of our own types', into what was expected.
fn expectation(message: &str) -> String {
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key}, which is missing");
    }
    match message.split_once(", expected ").or_else(|| message.split_once("; expected ")) {
        Some((found, expected)) => {
            // serde speaks of Rust's types.
            let expected = match expected {
                "usize" | "u64" | "u32" => "a whole number of 0 or more",
                "f64" => "a number",
                "a boolean" => "true or false",
                other => other,
            };
            format!("{expected} ({found})")
        }
        None => message.to_string(),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The first line that sets `key`, or opens its table.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        let name = line.split(['=', ']', ' ']).next().unwrap_or("");
        name == key
            || name.ends_with(&format!(".{key}"))
            || line.contains(&format!("{key} =")) && !line.starts_with('#')
    };
    text.lines().position(sets).map(|line| line + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
epochs = 2
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5" }
student = { architecture = "resnet8" }
loss = { preset = "iad-1" }
optimizer = { lr = 0.1, lr_policy = "reference" }
[teachers.robust]
checkpoint = "runs/teacher"
"#;

    fn read(text: &str, overrides: &[&str]) -> Result<RunConfig> {
        let overrides: Vec<Override> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        RunConfig::parse(text, Path::new("good.toml"), &overrides)
    }

    fn message(text: &str, overrides: &[&str]) -> String {
        let error = read(text, overrides).unwrap_err();
        assert!(error.downcast_ref::<UserError>().is_some(), "{error:?}");
        error.to_string()
    }

    #[test]
    fn what_is_resolved_reads_back_as_the_same() {
        for overrides in [
            &[][..],
            &[
                "loss.terms.introspect.trust.exponent=0.5",
                "attack.eps=0.1",
                "data.augment.crop=4",
                "data.augment.flip=true",
            ],
        ] {
            let config = read(GOOD, overrides).unwrap();
            assert_eq!(read(&config.resolved(), &[]).unwrap(), config);
        }
    }

    #[test]
    fn every_preset_is_valid_toml() {
        for (name, _) in PRESETS {
            let text = GOOD.replace("iad-1", name) + "[teachers.standard]\ncheckpoint = \"runs/standard\"\n";
            assert!(!read(&text, &[]).unwrap().loss.terms.is_empty(), "{name}");
        }
    }

    #[test]
    fn overrides_reach_terms_by_number_and_name() {
        let weight = |key: &str| read(GOOD, &[&format!("{key}=3")]).unwrap().loss.terms[1].weight;
        assert_eq!((weight("loss.terms.1.weight"), weight("loss.terms.introspect.weight")), (3.0, 3.0));
        assert_eq!(read(GOOD, &["loss.terms.label.weight=3", "loss.preset=at"]).unwrap().loss.terms[0].weight, 3.0);
        assert_eq!(read(GOOD, &["student.architecture=convnet"]).unwrap().student.architecture.to_string(), "convnet");
    }

    #[test]
    fn mistakes_are_named_with_key_value_and_way_out() {
        let with = |line: &str| format!("{line}\n{GOOD}");
        for (text, overrides, parts) in [
            (with("epoch = 3"), &[][..], &["good.toml", "epoch (line 1)", "`epochs`"][..]),
            (GOOD.replace("lr = 0.1", "lr = \"x\""), &[], &["optimizer.lr", "a number", "\"x\""]),
            (GOOD.replace("epochs = 2\n", ""), &[], &["the key `epochs`, which is missing"]),
            (GOOD.replace("size = 8", "size = 0"), &[], &["batch.size is 0", "1 to 1,048,576"]),
            (GOOD.replace("resnet8", "resnet9"), &[], &["student.architecture", "resnet9", "resnet18"]),
            (GOOD.replace("iad-1", "iad-3"), &[], &["loss.preset", "iad-3", "st, at, ard, akd2, trades, iad-2, iad-1"]),
            (GOOD.replace("epochs = 2", "epochs = ["), &[], &["line 3: expected valid TOML"]),
            (
                GOOD.replace("teachers.robust", "teachers.other"),
                &[],
                &["towards.network", "\"robust\"", "[teachers.robust]"],
            ),
            (
                GOOD.into(),
                &["student.architecture=resnet50"],
                &["student.architecture", "expected resnet18", "\"resnet50\""],
            ),
            (GOOD.into(), &["attack.eps=9"], &["attack.eps is 9", "8/255"]),
            (GOOD.into(), &["attack.nothing=9"], &["attack.nothing (from --set)", "`eps`"]),
            (GOOD.into(), &["epochs.x=9"], &["--set epochs.x", "a table at epochs"]),
            (GOOD.into(), &["loss.terms.other.weight=1"], &["teach, introspect"]),
            (GOOD.into(), &["loss.terms.teach.from_epoch=1"], &["loss.terms", "from_epoch = 0"]),
            (GOOD.into(), &["attack.kind=none"], &["attack.kind is \"none\""]),
            (GOOD.into(), &["evaluation.suite=[\"pgd\"]"], &["evaluation.suite[0]", "pgdN"]),
            (GOOD.into(), &["evaluation.batch=100"], &["evaluation.batch is 100", "multiple of 16"]),
        ] {
            let message = message(&text, overrides);
            assert!(parts.iter().all(|part| message.contains(part)), "{message}\nlacks one of {parts:?}");
        }
    }
}
