//! From a file and overrides to a configuration, with errors that name file, line, key and the known ones.

use std::path::Path;

use anyhow::Result;
use datasets::UserError;
use toml::Table;

use super::{Override, RunConfig, preset};

impl RunConfig {
    /// Reads `path`, replaces a preset by its method, applies `overrides`, and checks every value that can be checked
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
        preset::insert(&mut table, path, !presets.is_empty())?;
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
        for name in preset::names() {
            let text = GOOD.replace("iad-1", name) + "[teachers.standard]\ncheckpoint = \"runs/standard\"\n";
            assert!(!read(&text, &[]).unwrap().loss.terms.is_empty(), "{name}");
        }
    }

    #[test]
    fn overrides_reach_terms_by_number_and_name() {
        let weight = |key: &str| read(GOOD, &[&format!("{key}=3")]).unwrap().loss.terms[2].weight;
        assert_eq!((weight("loss.terms.2.weight"), weight("loss.terms.introspect.weight")), (3.0, 3.0));
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
            (
                GOOD.replace("iad-1", "iad-3"),
                &[],
                &[
                    "loss.preset",
                    "iad-3",
                    "st, at, trades, ard, ard-orig, akd2, akd2-partial, akd2-orig, iad-1, iad-1-down, iad-2, rslad, adaad",
                ],
            ),
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
            (GOOD.into(), &["loss.terms.other.weight=1"], &["teach, unused, introspect, label"]),
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
