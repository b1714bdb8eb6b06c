//! Which keys decide the result of a run, and which ones may change when it is resumed.

use super::{RunConfig, Selection};

/// Keys, and tables of keys with a dot at the end, that change nothing in the weights of a run or in their choice.
const FREE: [&str; 17] = [
    "checkpoint.",
    "comm.",
    "data.prefetch",
    "data.reading",
    "data.threads",
    "data.window_mib",
    "evaluation.autoattack.",
    "evaluation.batch",
    "evaluation.every",
    "evaluation.final",
    "evaluation.images",
    "evaluation.precision",
    "evaluation.suite",
    "guard.compare_every",
    "metrics.",
    "precision.cuda_graphs",
    "watchdog.",
];
/// Paths of inputs, whose contents are compared instead.
const PATHS: [&str; 4] = ["data.train", "data.test", "data.extra.file", "student.checkpoint"];
/// The attack that chooses the best weights.
const SELECTING: [&str; 3] = ["evaluation.norm", "evaluation.eps", "evaluation.step"];

impl RunConfig {
    /// Whether a run of this configuration may be resumed with another value of the dotted `key`, that of `now`. With
    /// `inputs_known`, the contents of its inputs are compared, and their paths may change.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_change(&self, key: &str, now: &Self, inputs_known: bool) -> Result<(), &'static str> {
        let among =
            |keys: &[&str]| keys.iter().any(|free| key == *free || free.ends_with('.') && key.starts_with(free));
        // `config` and `set` make a teacher; its weights are what teaches.
        let makes = |key: &str| key.ends_with(".checkpoint") || key.ends_with(".config") || key.contains(".set.");
        let teacher = key.starts_with("teachers.") && makes(key);
        let learner = key.starts_with("learners.") && key.ends_with(".checkpoint");
        match key {
            "epochs" if self.optimizers().any(|optimizer| optimizer.lr_policy.follows_the_length_of_the_run()) => {
                Err("the learning rate of every step depends on it")
            }
            "epochs" if self.loss.terms.iter().any(|term| term.ramp.is_some()) => {
                Err("the ramp of a loss term depends on it")
            }
            "epochs" if self.loss.rectify.is_some() => {
                Err("the temperature and the weight of loss.rectify depend on it")
            }
            "epochs" if self.averages.ema.as_ref().is_some_and(|ema| ema.warm_up.is_some()) => {
                Err("the warm-up of the moving average depends on it")
            }
            "epochs" if now.epochs < self.epochs => Err("a run can only become longer"),
            "epochs" => Ok(()),
            _ if among(&FREE) => Ok(()),
            _ if among(&SELECTING) && self.evaluation.selection == Selection::None => Ok(()),
            _ if among(&SELECTING) => Err("it chooses the best weights"),
            _ if (among(&PATHS) || teacher || learner) && inputs_known => Ok(()),
            _ => Err("it decides the result of the run"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Override;

    const CONFIG: &str = r#"
epochs = 4
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5" }
student = { architecture = "resnet8" }
loss = { preset = "iad-1" }
optimizer = { lr = 0.1, lr_policy = "constant" }
[teachers.robust]
checkpoint = "runs/teacher"
"#;

    fn config(changes: &[&str]) -> RunConfig {
        let changes: Vec<Override> = changes.iter().map(|text| text.parse().unwrap()).collect();
        RunConfig::parse(CONFIG, Path::new("run.toml"), &changes).unwrap()
    }

    #[test]
    fn what_decides_the_weights_stays_and_the_rest_may_change() {
        let (before, now) = (config(&[]), config(&["epochs=5"]));
        for key in [
            "epochs",
            "checkpoint.every",
            "evaluation.suite",
            "evaluation.images",
            "evaluation.precision",
            "data.threads",
        ] {
            assert_eq!(before.may_change(key, &now, false), Ok(()), "{key}");
        }
        for key in [
            "seed",
            "batch.size",
            "data.extra.fraction",
            "optimizer.lr",
            "evaluation.held_out",
            "evaluation.eps",
            "loss.terms.teach.weight",
        ] {
            assert!(before.may_change(key, &now, true).is_err(), "{key}");
        }
        for key in
            ["data.train", "data.test", "data.extra.file", "teachers.robust.checkpoint", "teachers.robust.set.epochs"]
        {
            assert!(
                before.may_change(key, &now, false).is_err() && before.may_change(key, &now, true).is_ok(),
                "{key}"
            );
        }
    }

    #[test]
    fn a_run_can_become_longer_where_its_rates_stay() {
        let cycle = r#"optimizer.lr_policy={ one_cycle = { start = 0.1, peak = 0.3, end = 0.1 } }"#;
        let cycle_cosine = "optimizer.lr_policy={ one_cycle_cosine = {} }";
        let cyclic = "optimizer.lr_policy={ cyclic = { base = 0, up = 2, down = 2 } }";
        let ramp = "loss.terms.teach.ramp=linear";
        let warm_up = "averages.ema={ decay = 0.9, warm_up = 0.1 }";
        for (before, now, allowed) in [
            (config(&[]), config(&["epochs=5"]), true),
            (config(&[]), config(&["epochs=3"]), false),
            (config(&[cycle]), config(&[cycle, "epochs=5"]), false),
            (config(&[cycle_cosine]), config(&[cycle_cosine, "epochs=5"]), false),
            (config(&["optimizer.lr_policy=cosine"]), config(&["optimizer.lr_policy=cosine", "epochs=5"]), false),
            (config(&[cyclic]), config(&[cyclic, "epochs=5"]), true),
            (config(&[ramp]), config(&[ramp, "epochs=5"]), false),
            (config(&[warm_up]), config(&[warm_up, "epochs=5"]), false),
        ] {
            assert_eq!(before.may_change("epochs", &now, true).is_ok(), allowed, "{} to {}", before.epochs, now.epochs);
        }
        let chosen = config(&["evaluation.selection=none"]);
        assert_eq!(chosen.may_change("evaluation.eps", &chosen, false), Ok(()));
    }
}
