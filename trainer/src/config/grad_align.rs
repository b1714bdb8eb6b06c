//! `[grad_align]`: alignment of the loss's gradients near each image.

use datasets::UserError;
use serde::{Deserialize, Serialize};

use super::range::must;
use super::{AcrossRanks, Dtype, RunConfig};

/// `[grad_align]`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradAlign {
    /// The weight of the regulariser in the loss.
    pub weight: f64,
}

impl GradAlign {
    /// The name of the regulariser among the terms of the loss.
    pub const NAME: &'static str = "grad_align";
}

impl RunConfig {
    pub(super) fn check_grad_align(&self) -> Result<(), UserError> {
        let Some(GradAlign { weight }) = self.grad_align else { return Ok(()) };
        must(weight.is_finite() && weight > 0.0, "grad_align.weight", weight, "a positive number, as in 0.2")?;
        let expected = "another number format: [grad_align] differentiates twice, which autocast does not";
        must(self.precision.dtype != Dtype::Bfloat16, "precision.dtype", "bfloat16", expected)?;
        must(
            self.awp.is_none(),
            "awp",
            "a table",
            "no [awp] beside [grad_align]: their gradients are of different losses",
        )?;
        let free = self.loss.terms.iter().all(|term| term.name != GradAlign::NAME);
        must(free, "loss.terms", GradAlign::NAME, "another name: [grad_align] has it")
    }

    /// Refuses `[grad_align]` where batch norm sums over several ranks, which cannot be differentiated twice.
    ///
    /// # Errors
    /// A [`UserError`] that names the key.
    pub fn check_grad_align_on(&self, ranks: usize) -> Result<(), UserError> {
        let sums = self.batch_norm.across_ranks == AcrossRanks::Sync && ranks > 1;
        let expected = "\"local\" with [grad_align] on several ranks: it differentiates twice, and the sum of batch norm over the \
                        ranks can be differentiated once";
        must(self.grad_align.is_none() || !sums, "batch_norm.across_ranks", "sync", expected)
            .map_err(|error| error.hint("set batch_norm.across_ranks = \"local\", or run on one rank"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::RunConfig;

    fn parse(changes: &[&str]) -> Result<RunConfig, String> {
        let text = r#"
epochs = 4
batch = { size = 8 }
data = { train = "a.h5", test = "a.h5" }
student = { architecture = "resnet8" }
loss = { preset = "at" }
optimizer = { lr = 0.1, lr_policy = "constant" }
"#;
        let changes: Vec<_> = changes.iter().map(|text| text.parse().unwrap()).collect();
        RunConfig::parse(text, Path::new("test.toml"), &changes).map_err(|error| error.to_string())
    }

    #[test]
    fn what_it_cannot_go_with_is_refused() {
        for (changes, key) in [
            (&["grad_align={ weight = 0 }"][..], "grad_align.weight"),
            (&["grad_align={ weight = 0.2 }", "precision.dtype=bfloat16"], "precision.dtype"),
            (&["grad_align={ weight = 0.2 }", "awp={ gamma = 0.01 }"], "awp"),
            (&["grad_align={ weight = 0.2 }", "loss.terms.label.name=grad_align"], "loss.terms"),
        ] {
            let message = parse(changes).unwrap_err();
            assert!(message.contains(key), "{changes:?}: {message}");
        }
    }

    #[test]
    fn several_ranks_need_batch_norm_apart() {
        let sync = parse(&["grad_align={ weight = 0.2 }"]).unwrap();
        assert!(sync.check_grad_align_on(1).is_ok() && parse(&[]).unwrap().check_grad_align_on(2).is_ok());
        let message = sync.check_grad_align_on(2).unwrap_err().to_string();
        assert!(message.contains("batch_norm.across_ranks") && message.contains("local"), "{message}");
        let local = parse(&["grad_align={ weight = 0.2 }", "batch_norm.across_ranks=local"]).unwrap();
        assert!(local.check_grad_align_on(2).is_ok());
    }
}
