//! The allowed values of what goes around the loss: perturbed weights and aligned gradients.

use datasets::UserError;

use super::range::must;
use super::{AcrossRanks, Awp, Dtype, GradAlign, RunConfig};

impl RunConfig {
    /// Whether the steps of `epoch` perturb the weights.
    pub fn perturbs_weights(&self, epoch: u64) -> bool {
        self.awp.is_some_and(|awp| awp.from_epoch <= epoch)
    }

    pub(super) fn check_awp(&self) -> Result<(), UserError> {
        let Some(Awp { gamma, from_epoch }) = self.awp else { return Ok(()) };
        let expected = "no table [loss.balance] beside [awp]: it weighs the losses of one pass a step";
        must(self.loss.balance.is_none(), "awp", "a table", expected)?;
        must((0.0..=1.0).contains(&gamma), "awp.gamma", gamma, "0 to 1, as in 0.005")?;
        let expected = format!("an epoch of the run, 0 to {}", self.epochs - 1);
        must(from_epoch < self.epochs, "awp.from_epoch", from_epoch, &expected)
    }

    pub(super) fn check_grad_align(&self) -> Result<(), UserError> {
        let Some(GradAlign { weight }) = self.grad_align else { return Ok(()) };
        must(weight.is_finite() && weight > 0.0, "grad_align.weight", weight, "a positive number, as in 0.2")?;
        let expected = "another number format: [grad_align] differentiates twice, which autocast does not";
        let dtype = self.precision.dtype;
        must(!matches!(dtype, Dtype::Bfloat16 | Dtype::Auto), "precision.dtype", dtype.name(), expected)?;
        let expected = "false: [grad_align] differentiates twice, and fused kernels can be differentiated once";
        must(!self.precision.fused.is_on(), "precision.fused", true, expected)?;
        must(
            self.awp.is_none(),
            "awp",
            "a table",
            "no [awp] beside [grad_align]: the weights would move along the loss without the regulariser",
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
    use crate::fixtures::parse;

    #[test]
    fn it_is_off_where_it_is_not_asked_for() {
        let off = parse(&[]).unwrap();
        assert!((0..4).all(|epoch| !off.perturbs_weights(epoch)) && !off.resolved().contains("awp"));
        let on = parse(&["awp={ gamma = 0.005, from_epoch = 2 }"]).unwrap();
        assert_eq!([0, 1, 2, 3].map(|epoch| on.perturbs_weights(epoch)), [false, false, true, true]);
        assert_eq!(RunConfig::parse(&on.resolved(), Path::new("again.toml"), &[]).unwrap(), on);
        assert!(on.hash() != off.hash());
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (awp, key) in [
            ("awp={ gamma = -0.1 }", "awp.gamma"),
            ("awp={ gamma = nan }", "awp.gamma"),
            ("awp={ gamma = 0.01, from_epoch = 4 }", "awp.from_epoch"),
            ("awp={ from_epoch = 1 }", "gamma"),
        ] {
            let message = parse(&[awp]).unwrap_err().to_string();
            assert!(message.contains(key), "{awp}: {message}");
        }
    }

    #[test]
    fn what_it_cannot_go_with_is_refused() {
        for (changes, key) in [
            (&["grad_align={ weight = 0 }"][..], "grad_align.weight"),
            (&["grad_align={ weight = 0.2 }", "precision.dtype=bfloat16"], "precision.dtype"),
            (&["grad_align={ weight = 0.2 }", "precision.fused=true"], "precision.fused"),
            (&["grad_align={ weight = 0.2 }", "awp={ gamma = 0.01 }"], "awp"),
            (&["grad_align={ weight = 0.2 }", "loss.terms.label.name=grad_align"], "loss.terms"),
        ] {
            let message = parse(changes).unwrap_err().to_string();
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
