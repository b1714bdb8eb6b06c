//! Attacks of a single step with each gradient of the weights, for fast adversarial training: what their kind decides of
//! `[attack]`.

use datasets::UserError;
use toml::{Table, Value};

use super::range::must;
use super::{AttackConfig, AttackKind, Norm, Pixels, Start};

/// How often a batch is replayed where nothing else is said: the authors' number.
const REPLAYS: i64 = 8;

impl AttackKind {
    /// Whether it takes one step from a random start.
    pub fn is_single_step(self) -> bool {
        self.single_step().is_some()
    }

    /// Its name, and the default length of its step in radii.
    fn single_step(self) -> Option<(&'static str, f64)> {
        match self {
            Self::None | Self::Pgd => None,
            Self::FgsmRs => Some(("fgsm_rs", 1.25)),
            Self::NFgsm => Some(("n_fgsm", 1.0)),
            Self::Free => Some(("free", 1.0)),
        }
    }
}

impl AttackConfig {
    pub(super) fn check_single_step(&self) -> Result<(), UserError> {
        let (replays, free) = (self.replays, self.kind == AttackKind::Free);
        must(free || replays == 1, "attack.replays", replays, "1 without attack.kind = \"free\"")?;
        must((1..=1000).contains(&replays), "attack.replays", replays, "1 to 1,000")?;
        let Some((name, _)) = self.kind.single_step() else { return Ok(()) };
        let expected = |what: &str| format!("{what}, with attack.kind = {name:?}");
        must(self.steps == 1, "attack.steps", self.steps, &expected("1"))?;
        must(self.norm == Norm::Linf, "attack.norm", self.norm, &expected("linf"))?;
        let start = format!("{:?}", self.start).to_lowercase();
        must(self.start == Start::Uniform, "attack.start", start, &expected("uniform"))?;
        must(self.clamp_start, "attack.clamp_start", self.clamp_start, &expected("true"))
    }
}

/// Sets the number of steps, their length and the start of an attack of a single step, where `table` does not.
pub(super) fn complete(table: &mut Table) {
    let Some(attack) = table.get_mut("attack").and_then(Value::as_table_mut) else { return };
    let kind = attack.get("kind").cloned().and_then(|kind| kind.try_into::<AttackKind>().ok());
    let Some((_, radii)) = kind.and_then(AttackKind::single_step) else { return };
    let eps = match attack.get("eps").cloned() {
        None => Some(AttackConfig::default().eps),
        // The message for a length that is none comes from reading it.
        Some(eps) => eps.try_into::<Pixels>().ok(),
    };
    if kind == Some(AttackKind::Free) {
        attack.entry("replays").or_insert(Value::Integer(REPLAYS));
    }
    attack.entry("steps").or_insert(Value::Integer(1));
    attack.entry("clamp_start").or_insert(Value::Boolean(true));
    if let Some(Pixels(eps)) = eps {
        let step = Pixels(eps * 255.0 * radii / 255.0).to_string();
        attack.entry("step").or_insert(Value::String(step));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::RunConfig;

    fn parse(attack: &str, preset: &str) -> Result<AttackConfig, String> {
        let text = format!(
            r#"
epochs = 4
batch = {{ size = 8 }}
data = {{ train = "a.h5", test = "a.h5" }}
student = {{ architecture = "resnet8" }}
loss = {{ preset = {preset:?} }}
optimizer = {{ lr = 0.1, lr_policy = "constant" }}
attack = {{ {attack} }}
"#
        );
        let config = RunConfig::parse(&text, Path::new("test.toml"), &[]).map_err(|error| error.to_string())?;
        assert_eq!(RunConfig::parse(&config.resolved(), Path::new("again.toml"), &[]).unwrap(), config);
        Ok(config.attack)
    }

    #[test]
    fn the_kind_decides_the_step() {
        for (attack, step) in [
            (r#"kind = "fgsm_rs""#, "10/255"),
            (r#"kind = "n_fgsm""#, "8/255"),
            (r#"kind = "fgsm_rs", eps = "4/255""#, "5/255"),
            (r#"kind = "n_fgsm", eps = 0.5"#, "0.5"),
            (r#"kind = "n_fgsm", step = "6/255""#, "6/255"),
            (r#"kind = "free", batch_norm = "train_update""#, "8/255"),
        ] {
            let found = parse(attack, "at").unwrap();
            assert_eq!((found.steps, found.step.to_string().as_str()), (1, step), "{attack}");
            assert!(found.clamp_start && found.kind.is_single_step());
        }
        let pgd = parse("", "at").unwrap();
        assert!(pgd.steps == 10 && !pgd.kind.is_single_step());
    }

    #[test]
    fn what_the_kind_rules_out_is_refused() {
        for (attack, preset, key) in [
            ("kind = \"n_fgsm\", steps = 2", "at", "attack.steps"),
            ("kind = \"fgsm_rs\", norm = \"l2\"", "at", "attack.norm"),
            ("kind = \"fgsm_rs\", clamp_start = false", "at", "attack.clamp_start"),
            ("kind = \"n_fgsm\"", "trades", "attack.start"),
            ("kind = \"n_fgsm\", eps = \"wide\"", "at", "attack.eps"),
            ("replays = 2", "at", "attack.replays"),
            ("kind = \"free\", batch_norm = \"train_update\", replays = 0", "at", "attack.replays"),
            ("kind = \"free\"", "at", "attack.batch_norm"),
            (
                "kind = \"free\", batch_norm = \"train_update\", start = \"uniform\", clamp_start = true",
                "trades",
                "attack.towards",
            ),
            ("kind = \"free\", batch_norm = \"train_update\", lead = \"ema\"", "at", "attack.lead"),
        ] {
            let message = parse(attack, preset).unwrap_err();
            assert!(message.contains(key), "{attack}: {message}");
        }
    }
}
