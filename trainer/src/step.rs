//! One optimisation step. Read this first.

use std::sync::Arc;

use anyhow::Result;
use comm::Communicator;
use tch::{Kind, Tensor, no_grad};

use crate::attack::{Attack, Noise};
use crate::batch::Batch;
use crate::config::{AttackKind, RunConfig};
use crate::gradients::Gradients;
use crate::loss::{Term, Trust};
use crate::model::Mode;
use crate::observe::{Observed, observe};
use crate::optimizer::Sgd;
use crate::views::{Images, Networks, Views};

/// A student, its optimizer, and how they move.
pub struct Step {
    /// The student and its teachers.
    pub networks: Networks,
    /// The student's parameters and gradients.
    pub parameters: Gradients,
    /// The momentum.
    pub optimizer: Sgd,
    attack: Option<Box<dyn Attack>>,
    attack_mode: Mode,
    objective: Term,
    ranks: Arc<dyn Communicator>,
}

impl Step {
    /// Prepares steps as `config` describes them; every rank starts from rank 0's parameters.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn new(config: &RunConfig, mut networks: Networks, ranks: Arc<dyn Communicator>) -> Result<Self> {
        let parameters = Gradients::flatten(&mut networks.student, Arc::clone(&ranks))?;
        let optimizer = Sgd::new(&parameters.values, config.optimizer.momentum, config.optimizer.weight_decay);
        let attack: Option<Box<dyn Attack>> = match config.attack.kind {
            AttackKind::None => None,
            AttackKind::Pgd => Some(Box::new(config.attack.pgd())),
        };
        let objective = Term::plain("attack", Images::Adversarial, config.attack.towards.clone());
        let attack_mode = config.attack.batch_norm.mode();
        Ok(Self { networks, parameters, optimizer, attack, attack_mode, objective, ranks })
    }

    /// Attacks the student on `batch`, and moves it by `rate` against the gradient of `terms` over the global batch.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn run(
        &mut self,
        batch: &Batch,
        noise: &Noise,
        terms: &[Term],
        trust: Option<&Trust>,
        rate: f64,
    ) -> Result<Observed> {
        let statistics = self.networks.student.flat_statistics.copy();
        let adversarial = self.adversarial(batch, noise);

        let views = Views::new(&self.networks, Mode::Train, &batch.images, &adversarial);
        let global_count = batch.global_count as f64;
        let values: Vec<Tensor> = terms.iter().map(|term| term.evaluate(&views, &batch.labels, global_count)).collect();
        let total: Tensor = values.iter().sum();

        self.parameters.zero();
        total.backward();
        self.parameters.finish()?;
        self.average_statistics(batch)?;

        // Everything below is masked by this flag on the device; the host reads it one step late.
        let finite = self.parameters.gradients.isfinite();
        let place = finite.logical_not().to_kind(Kind::Int8).argmax(0, false);
        let finite = finite.all();
        self.optimizer.step(&mut self.parameters, rate, &finite);
        self.keep_statistics(&statistics, &finite);

        let (names, values) = observe(&views, &batch.labels, terms, &values, trust);
        self.ranks.start_sum(&values)?;
        self.ranks.finish_sums()?;
        Ok(Observed { names, values, finite, place })
    }

    /// The student's adversarial images of the batch.
    fn adversarial(&self, batch: &Batch, noise: &Noise) -> Tensor {
        let Some(attack) = &self.attack else { return batch.images.shallow_clone() };
        let fixed = Views::new(&self.networks, self.attack_mode, &batch.images, &batch.images);
        attack.perturb(&batch.images, noise, &|candidate| {
            self.objective.evaluate(&fixed.with_candidate(candidate), &batch.labels, 1.0)
        })
    }

    /// Makes the running statistics the mean over the ranks, weighted by their samples. With batch norm across ranks they are
    /// equal already.
    fn average_statistics(&self, batch: &Batch) -> Result<()> {
        let student = &self.networks.student;
        if self.ranks.world_size() == 1 || student.statistics.is_empty() || student.across_ranks {
            return Ok(());
        }
        let share = batch.labels.numel() as f64 / batch.global_count as f64;
        let _ = no_grad(|| student.flat_statistics.shallow_clone().g_mul_scalar_(share));
        self.ranks.start_sum(&student.flat_statistics)?;
        self.ranks.finish_sums()
    }

    /// Takes the running statistics back to `before` where the gradient was not finite.
    fn keep_statistics(&self, before: &Tensor, finite: &Tensor) {
        let statistics = &self.networks.student.flat_statistics;
        no_grad(|| statistics.shallow_clone().copy_(&statistics.where_self(finite, before)));
    }
}

#[cfg(test)]
mod tests;
