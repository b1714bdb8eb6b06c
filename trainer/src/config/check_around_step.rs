//! The allowed values of what goes around the loss: perturbed weights and aligned gradients.

use datasets::UserError;

use super::range::must;
use super::{AcrossRanks, AttackKind, Awp, Divergence, Dtype, GradAlign, Mode, OptimizerKind, RunConfig, Target};

impl RunConfig {
    /// Whether the steps of `epoch` perturb the weights.
    pub fn perturbs_weights(&self, epoch: u64) -> bool {
        self.awp.is_some_and(|awp| awp.from_epoch <= epoch)
    }

    pub(super) fn check_awp(&self) -> Result<(), UserError> {
        let Some(Awp { gamma, from_epoch }) = self.awp else { return Ok(()) };
        let expected =
            "no [loss.balance], times or magnitude_of beside [awp]: they weigh the losses of one pass a step";
        must(!self.loss.couples(), "awp", "a table", expected)?;
        must((0.0..=1.0).contains(&gamma), "awp.gamma", gamma, "0 to 1, as in 0.005")?;
        let expected = format!("an epoch of the run, 0 to {}", self.epochs - 1);
        must(from_epoch < self.epochs, "awp.from_epoch", from_epoch, &expected)
    }

    /// Free adversarial training has no pass of the attack's own: the loss of the update is what is raised.
    pub(super) fn check_free(&self) -> Result<(), UserError> {
        let attack = &self.attack;
        if attack.kind != AttackKind::Free {
            return Ok(());
        }
        let expected = |what: &str| format!("{what}, with attack.kind = \"free\"");
        let mode = attack.batch_norm == Mode::Train;
        let expected_mode = expected("train_update: its passes are those of training");
        must(mode, "attack.batch_norm", attack.batch_norm.name(), &expected_mode)?;
        let natural = attack.natural_batch_norm;
        let named = natural.map_or("", Mode::name);
        must(natural.is_none(), "attack.natural_batch_norm", named, &expected("no key"))?;
        let label = attack.towards == Target::Label;
        must(label, "attack.towards", "a prediction", &expected("\"label\": it raises the loss itself"))?;
        let divergence = attack.divergence;
        must(divergence == Divergence::Kl, "attack.divergence", divergence.name(), &expected("no key"))?;
        // Its updates are counted by steps, each of which makes several.
        let sgd = self.optimizer.kind == OptimizerKind::Sgd;
        must(sgd, "optimizer.kind", "adamw", &expected("sgd"))?;
        must(attack.lead.is_none(), "attack.lead", "a network", &expected("no key"))?;
        let parts = self.batch.accumulate;
        must(parts == 1, "batch.accumulate", parts, &expected("1"))?;
        let raised = self.loss.raises_terms();
        must(!raised, "loss.terms", "a term with in_attack", &expected("none"))?;
        let weights = self.loss.class_weights.is_none();
        must(weights, "loss.class_weights", "a table", &expected("none: they count the steps of an attack"))?;
        must(self.awp.is_none(), "awp", "a table", &expected("none"))?;
        must(self.grad_align.is_none(), "grad_align", "a table", &expected("none"))
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
            (&["attack.kind=free", "attack.batch_norm=train_update", "awp={ gamma = 0.01 }"], "awp"),
            (&["attack.kind=free", "attack.batch_norm=train_update", "grad_align={ weight = 0.2 }"], "grad_align"),
            (&["attack.kind=free", "attack.batch_norm=train_update", "batch.accumulate=2"], "batch.accumulate"),
            (&["attack.kind=free", "attack.batch_norm=eval"], "attack.batch_norm"),
            (
                &["attack.kind=free", "attack.batch_norm=train_update", "attack.natural_batch_norm=eval"],
                "attack.natural_batch_norm is eval",
            ),
            (
                &["attack.kind=free", "attack.batch_norm=train_update", "attack.divergence=square"],
                "attack.divergence is square",
            ),
            (
                &["attack.kind=free", "attack.batch_norm=train_update", "optimizer.kind=adamw"],
                "optimizer.kind is adamw",
            ),
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
