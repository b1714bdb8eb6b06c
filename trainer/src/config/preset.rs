//! Presets: named methods, each with its loss, attack and batch norm.

use std::path::Path;

use datasets::UserError;
use toml::{Table, Value};

use super::Override;

/// The presets, compiled in so that the program needs no files.
const PRESETS: [(&str, &str); 35] = [
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
    ("mart", include_str!("../../../configs/losses/mart.toml")),
    ("trades-ls", include_str!("../../../configs/losses/trades-ls.toml")),
    ("igdm", include_str!("../../../configs/losses/igdm.toml")),
    ("igdm-ard", include_str!("../../../configs/losses/igdm-ard.toml")),
    ("igdm-rslad", include_str!("../../../configs/losses/igdm-rslad.toml")),
    ("nuat", include_str!("../../../configs/losses/nuat.toml")),
    ("ltd", include_str!("../../../configs/losses/ltd.toml")),
    ("hat", include_str!("../../../configs/losses/hat.toml")),
    ("dgad", include_str!("../../../configs/losses/dgad.toml")),
    ("dkl", include_str!("../../../configs/losses/dkl.toml")),
    ("gkl", include_str!("../../../configs/losses/gkl.toml")),
    ("saad", include_str!("../../../configs/losses/saad.toml")),
    ("saad-c", include_str!("../../../configs/losses/saad-c.toml")),
    ("adr", include_str!("../../../configs/losses/adr.toml")),
    ("adr-trades", include_str!("../../../configs/losses/adr-trades.toml")),
    ("fair-ard", include_str!("../../../configs/losses/fair-ard.toml")),
    ("fair-iad", include_str!("../../../configs/losses/fair-iad.toml")),
    ("fair-rslad", include_str!("../../../configs/losses/fair-rslad.toml")),
    ("mtard", include_str!("../../../configs/losses/mtard.toml")),
    ("b-mtard", include_str!("../../../configs/losses/b-mtard.toml")),
    ("lbgat", include_str!("../../../configs/losses/lbgat.toml")),
    ("peeraid", include_str!("../../../configs/losses/peeraid.toml")),
];

/// The names of the presets.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|(name, _)| *name)
}

/// Replaces `loss.preset` by the method: its terms, and its values for keys of other sections that `table` does not
/// set. A preset of the command line also replaces the file's terms. Returns the preset's name.
pub(super) fn insert(table: &mut Table, path: &Path, from_command: bool) -> Result<Option<String>, UserError> {
    let Some(loss) = table.get_mut("loss").and_then(Value::as_table_mut) else { return Ok(None) };
    let Some(preset) = loss.remove("preset") else { return Ok(None) };
    let error = |expected: String| UserError::expected(expected).file(path).key("loss.preset").value(&preset);
    if loss.contains_key("terms") && !from_command {
        return Err(error("either a preset or terms, not both".into()).hint(
            "copy the preset's terms from configs/losses/ and change them there, or use --set loss.terms.NAME.KEY=...",
        ));
    }
    let found = PRESETS.iter().find(|(name, _)| Some(*name) == preset.as_str());
    let (_, text) = found.ok_or_else(|| {
        error(format!("one of {}", names().collect::<Vec<_>>().join(", ")))
            .did_you_mean(preset.as_str().unwrap_or_default(), names())
    })?;
    if from_command {
        // What the file's method remembers is no part of this one.
        for key in ["class_weights", "class_means", "rectify", "balance"] {
            loss.remove(key);
        }
    }
    let mut method: Table = text.parse().unwrap_or_else(|error| unreachable!("presets are tested: {error}"));
    if let Some(terms) = method.remove("terms") {
        loss.insert("terms".into(), terms);
    }
    for (section, defaults) in method {
        let own = table.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
        if let (Value::Table(own), Value::Table(defaults)) = (own, defaults) {
            for (key, value) in defaults {
                match (own.get_mut(&key), value) {
                    // Two tables of one learner are one.
                    (Some(Value::Table(own)), Value::Table(learner)) if section == "learners" => {
                        for (key, value) in learner {
                            own.entry(key).or_insert(value);
                        }
                    }
                    (None, value) => drop(own.insert(key, value)),
                    (Some(_), _) => {}
                }
            }
        }
    }
    if from_command {
        keep_learners_of_terms(table);
    }
    Ok(preset.as_str().map(str::to_string))
}

/// Removes the learners that no term trains: those of another method.
fn keep_learners_of_terms(table: &mut Table) {
    let terms = table.get("loss").and_then(|loss| loss.get("terms")).and_then(Value::as_array);
    let networks = terms.into_iter().flatten().filter_map(|term| term.get("network").and_then(Value::as_str));
    let trained: Vec<String> = networks.map(str::to_string).collect();
    let learners = table.get_mut("learners").and_then(Value::as_table_mut);
    learners.into_iter().for_each(|learners| learners.retain(|name, _| trained.iter().any(|network| network == name)));
}

/// Keeps the preset `iad-2` its script above temperature 1. `IAD-II.py` has one temperature for both teachers and multiplies its
/// untempered self term by the square of it too. So a changed temperature changes the weight of `introspect` to
/// 0.5 temperature^2, unless `changes` set that weight.
///
/// # Errors
/// A [`UserError`] for two different temperatures.
pub(super) fn tie_temperatures(
    table: &mut Table,
    preset: Option<&str>,
    changes: &[Override],
    path: &Path,
) -> Result<(), UserError> {
    let terms = table.get_mut("loss").and_then(|loss| loss.get_mut("terms")).and_then(Value::as_array_mut);
    let Some(terms) = terms.filter(|_| preset == Some("iad-2")) else { return Ok(()) };
    let place = |terms: &[Value], name: &str| {
        terms.iter().position(|term| term.get("name").and_then(Value::as_str) == Some(name))
    };
    let temperature = |name: &str| {
        let value = terms.get(place(terms, name)?)?.get("temperature")?;
        value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))
    };
    let [teach, standard] = ["teach", "standard"].map(|name| temperature(name).unwrap_or(1.0));
    if teach.to_bits() != standard.to_bits() {
        return Err(UserError::expected(format!(
            "the temperature of loss.terms.teach, {teach}, as IAD-II.py has one for both"
        ))
        .file(path)
        .key("loss.terms.standard.temperature")
        .value(standard)
        .hint(
            "set both; or copy the terms of configs/losses/iad-2.toml into the configuration and change them there",
        ));
    }
    let Some(introspect) = place(terms, "introspect") else { return Ok(()) };
    let keys = ["introspect".to_string(), introspect.to_string()].map(|name| format!("loss.terms.{name}.weight"));
    if teach != 1.0 && !changes.iter().any(|change| keys.contains(&change.key)) {
        let weight = Value::Float(0.5 * teach * teach);
        terms[introspect].as_table_mut().and_then(|term| term.insert("weight".into(), weight));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AttackConfig, AttackKind, Compat, Mode, RunConfig, Start, Target};

    fn read(preset: &str, keys: &str, overrides: &[&str]) -> RunConfig {
        let text = format!(
            r#"
epochs = 2
batch = {{ size = 8 }}
data = {{ train = "a.h5", test = "a.h5" }}
student = {{ architecture = "resnet8" }}
loss = {{ preset = {preset:?} }}
optimizer = {{ lr = 0.1, lr_policy = "constant" }}
teachers = {{ robust.checkpoint = "a", standard.checkpoint = "b" }}
{keys}
"#
        );
        let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        RunConfig::parse(&text, Path::new("test.toml"), &overrides).unwrap()
    }

    #[test]
    fn every_preset_brings_the_attack_and_batch_norm_of_its_method() {
        use Compat::{Lean, Reference};
        use Mode::{Eval, Train};
        for (presets, start, clamp_start, batch_norm, compat) in [
            (&["at"][..], Start::Uniform, true, Eval, Lean),
            (&["trades", "adaad"], Start::Gaussian, false, Eval, Reference),
            (&["rslad"], Start::Gaussian, false, Eval, Lean),
            (&["ard", "ard-orig", "akd2", "akd2-partial"], Start::Uniform, false, Train, Reference),
            (&["iad-1", "iad-1-down", "iad-2"], Start::Uniform, false, Train, Reference),
            (&["akd2-orig"], Start::Uniform, true, Train, Reference),
        ] {
            for preset in presets {
                let config = read(preset, "", &[]);
                let AttackConfig { start: found, clamp_start: clamped, batch_norm: mode, kind, .. } = config.attack;
                assert_eq!((found, clamped, mode), (start, clamp_start, batch_norm), "{preset}");
                assert_eq!((kind, config.batch_norm.compat), (AttackKind::Pgd, compat), "{preset}");
                let on_divergence = ["trades", "rslad", "adaad"].contains(preset);
                assert_eq!(config.attack.towards != Target::Label, on_divergence, "{preset}");
            }
        }
        assert_eq!(read("st", "", &[]).attack.kind, AttackKind::None);
    }

    #[test]
    fn the_file_wins_over_the_preset_key_by_key_and_overrides_over_both() {
        let keys = "attack = { start = \"natural\", steps = 3 }\nbatch_norm = { across_ranks = \"local\" }";
        let config = read("trades", keys, &[]);
        assert_eq!((config.attack.start, config.attack.steps), (Start::Natural, 3));
        assert_eq!((config.attack.batch_norm, config.batch_norm.compat), (Mode::Eval, Compat::Reference));
        assert!(matches!(config.attack.towards, Target::Prediction(_)));

        let overrides = ["attack.start=uniform", "attack.towards=label", "batch_norm.compat=lean"];
        let config = read("trades", keys, &overrides);
        assert_eq!((config.attack.start, config.attack.towards), (Start::Uniform, Target::Label));
        assert_eq!(config.batch_norm.compat, Compat::Lean);

        // A preset of the command line replaces that of the file. The file's keys override it too.
        let config = read("trades", keys, &["loss.preset=at"]);
        assert_eq!((config.attack.start, config.attack.clamp_start), (Start::Natural, true));
        assert_eq!((config.attack.towards, config.batch_norm.compat), (Target::Label, Compat::Lean));
        assert_eq!(config.loss.terms.len(), 1);
    }

    #[test]
    fn iad_2_keeps_to_its_script_above_temperature_1() {
        let weight = |overrides: &[&str]| read("iad-2", "", overrides).loss.terms[3].weight;
        let both = |temperature: &str| {
            ["teach", "standard"].map(|name| format!("loss.terms.{name}.temperature={temperature}"))
        };
        assert_eq!(weight(&[]), 0.5);
        for (temperature, expected) in [("1", 0.5), ("2", 2.0), ("2.5", 3.125), ("0.5", 0.125)] {
            let set = both(temperature);
            assert_eq!(weight(&[&set[0], &set[1]]), expected, "{temperature}");
        }
        let set = both("2");
        // A weight that is stated stays, by name or by number.
        assert_eq!(weight(&[&set[0], &set[1], "loss.terms.introspect.weight=0.5"]), 0.5);
        assert_eq!(weight(&["loss.terms.3.weight=0.7", &set[0], &set[1]]), 0.7);
        // Other presets have no such script, and a resolved configuration is left as it is.
        let overrides = ["loss.terms.teach.temperature=2"];
        assert_eq!(read("iad-1", "", &overrides).loss.terms[2].weight, read("iad-1", "", &[]).loss.terms[2].weight);
        let config = read("iad-2", "", &[&set[0], &set[1], "loss.terms.introspect.weight=0.5"]);
        assert_eq!(RunConfig::parse(&config.resolved(), Path::new("run.toml"), &[]).unwrap(), config);
    }

    #[test]
    fn iad_2_has_one_temperature() {
        let overrides = ["loss.preset=iad-2", "loss.terms.teach.temperature=2"].map(|text| text.parse().unwrap());
        let text = read("at", "", &[]).resolved();
        let error = RunConfig::parse(&text, Path::new("test.toml"), &overrides).unwrap_err().to_string();
        assert!(error.contains("loss.terms.standard.temperature is 1") && error.contains("set both"), "{error}");
    }

    #[test]
    fn what_is_resolved_states_what_the_preset_brought() {
        let config = read("trades", "", &[]);
        let again = RunConfig::parse(&config.resolved(), Path::new("run.toml"), &[]).unwrap();
        assert_eq!(again, config);
        assert!(!config.resolved().contains("preset"));
    }
}
