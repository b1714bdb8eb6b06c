//! `[awp]`: adversarial weight perturbation.

use datasets::UserError;
use serde::{Deserialize, Serialize};

use super::RunConfig;
use super::range::must;

/// `[awp]`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Awp {
    /// The length of a weight tensor's perturbation, as a share of the tensor's own.
    pub gamma: f64,
    /// The first epoch, from 0, whose steps perturb.
    #[serde(default)]
    pub from_epoch: u64,
}

impl RunConfig {
    /// Whether the steps of `epoch` perturb the weights.
    pub fn perturbs_weights(&self, epoch: u64) -> bool {
        self.awp.is_some_and(|awp| awp.from_epoch <= epoch)
    }

    pub(super) fn check_awp(&self) -> Result<(), UserError> {
        let Some(Awp { gamma, from_epoch }) = self.awp else { return Ok(()) };
        let expected = "no table [loss.balance] beside [awp]: it weighs the losses of one pass a step";
        must(self.loss.balance.is_none(), "awp", "set", expected)?;
        must((0.0..=1.0).contains(&gamma), "awp.gamma", gamma, "0 to 1, as in 0.005")?;
        let expected = format!("an epoch of the run, 0 to {}", self.epochs - 1);
        must(from_epoch < self.epochs, "awp.from_epoch", from_epoch, &expected)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::RunConfig;

    fn parse(awp: &str) -> Result<RunConfig, String> {
        let text = r#"
epochs = 4
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5" }
student = { architecture = "resnet8" }
loss = { preset = "trades" }
optimizer = { lr = 0.1, lr_policy = "constant" }
"#;
        RunConfig::parse(&format!("{text}{awp}"), Path::new("test.toml"), &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_where_it_is_not_asked_for() {
        let off = parse("").unwrap();
        assert!((0..4).all(|epoch| !off.perturbs_weights(epoch)) && !off.resolved().contains("awp"));
        let on = parse("awp = { gamma = 0.005, from_epoch = 2 }").unwrap();
        assert_eq!([0, 1, 2, 3].map(|epoch| on.perturbs_weights(epoch)), [false, false, true, true]);
        assert_eq!(RunConfig::parse(&on.resolved(), Path::new("again.toml"), &[]).unwrap(), on);
        assert!(on.hash() != off.hash());
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (awp, key) in [
            ("awp = { gamma = -0.1 }", "awp.gamma"),
            ("awp = { gamma = nan }", "awp.gamma"),
            ("awp = { gamma = 0.01, from_epoch = 4 }", "awp.from_epoch"),
            ("awp = { from_epoch = 1 }", "gamma"),
        ] {
            let message = parse(awp).unwrap_err();
            assert!(message.contains(key), "{awp}: {message}");
        }
    }
}
