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

#[cfg(test)]
mod tests {
    use super::super::{AttackBatchNorm, AttackConfig, AttackKind, Compat, RunConfig};
    use super::*;
    use crate::attack::Start;
    use crate::loss::Target;

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
        use AttackBatchNorm::{Eval, TrainUpdate};
        use Compat::{Lean, Reference};
        for (presets, start, clamp_start, batch_norm, compat) in [
            (&["at"][..], Start::Uniform, true, Eval, Lean),
            (&["trades", "adaad"], Start::Gaussian, false, Eval, Reference),
            (&["rslad"], Start::Gaussian, false, Eval, Lean),
            (&["ard", "ard-orig", "akd2", "akd2-partial"], Start::Uniform, false, TrainUpdate, Reference),
            (&["iad-1", "iad-1-down", "iad-2"], Start::Uniform, false, TrainUpdate, Reference),
            (&["akd2-orig"], Start::Uniform, true, TrainUpdate, Reference),
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
        assert_eq!((config.attack.batch_norm, config.batch_norm.compat), (AttackBatchNorm::Eval, Compat::Reference));
        assert!(matches!(config.attack.towards, Target::Prediction(_)));

        let overrides = ["attack.start=uniform", "attack.towards=label", "batch_norm.compat=lean"];
        let config = read("trades", keys, &overrides);
        assert_eq!((config.attack.start, config.attack.towards), (Start::Uniform, Target::Label));
        assert_eq!(config.batch_norm.compat, Compat::Lean);

        // A preset of the command line takes the place of the file's, and the file's keys win over it too.
        let config = read("trades", keys, &["loss.preset=at"]);
        assert_eq!((config.attack.start, config.attack.clamp_start), (Start::Natural, true));
        assert_eq!((config.attack.towards, config.batch_norm.compat), (Target::Label, Compat::Lean));
        assert_eq!(config.loss.terms.len(), 1);
    }

    #[test]
    fn what_is_resolved_states_what_the_preset_brought() {
        let config = read("trades", "", &[]);
        let again = RunConfig::parse(&config.resolved(), Path::new("run.toml"), &[]).unwrap();
        assert_eq!(again, config);
        assert!(!config.resolved().contains("preset"));
    }
}
