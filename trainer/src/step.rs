//! One optimisation step. Read this first.

use std::sync::Arc;

use anyhow::Result;
use comm::Communicator;
use tch::{Tensor, no_grad};

use crate::attack::{Attack, Noise};
use crate::batch::Batch;
use crate::config::{AttackKind, Precision, RunConfig};
use crate::gradients::Gradients;
use crate::loss::Term;
use crate::model::Mode;
use crate::observe::{Observed, Observer};
use crate::optimizer::Sgd;
use crate::statistics::average_over_ranks;
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
    observer: Observer,
    precision: Precision,
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
        let observer = Observer::new(config);
        let precision = config.precision;
        Ok(Self { networks, parameters, optimizer, attack, attack_mode, objective, observer, precision, ranks })
    }

    /// Attacks the student on `batch`, and moves it by `rate` against the gradient of `terms` over the global batch.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn run(&mut self, batch: &Batch, noise: &Noise, terms: &[Term], rate: f64) -> Result<Observed> {
        let _products = self.precision.products();
        let casts = self.precision.casts();
        let statistics = self.networks.student.flat_statistics.copy();
        let fixed = Views::new(&self.networks, self.attack_mode, &batch.images, &batch.images);
        let adversarial = self.adversarial(batch, noise, &fixed);

        let asked = terms.iter().filter(|term| term.weight != 0.0).flat_map(Term::asks).chain(self.observer.asks());
        let views = Views::new(&self.networks, Mode::Train, &batch.images, &adversarial);
        let views = views.taking(&fixed).expecting(asked);
        let global_count = batch.global_count as f64;
        let mut summands = vec![];
        for term in terms {
            match term.weight {
                0.0 => views.pass(term.of),
                _ => summands.push((term, term.evaluate(&views, &batch.labels, global_count))),
            }
        }
        let total: Tensor = summands.iter().map(|(_, value)| value).sum();

        self.parameters.zero();
        total.backward();
        self.parameters.finish()?;
        average_over_ranks(&self.networks.student, batch, self.ranks.as_ref())?;

        // Everything below is masked by this flag on the device; the host reads it one step late.
        let (finite, place) = finite(&self.parameters.gradients);
        drop(casts);
        self.optimizer.step(&mut self.parameters, rate, &finite);
        self.keep_statistics(&statistics, &finite);

        let (names, values) = self.observer.observe(&views, &batch.labels, &summands);
        self.ranks.start_sum(&values)?;
        self.ranks.finish_sums()?;
        Ok(Observed { names, values, finite, place })
    }

    /// The student's adversarial images of the batch.
    fn adversarial(&self, batch: &Batch, noise: &Noise, fixed: &Views) -> Tensor {
        let Some(attack) = &self.attack else { return batch.images.shallow_clone() };
        attack.perturb(&batch.images, noise, &|candidate| {
            self.objective.evaluate(&fixed.with_candidate(candidate), &batch.labels, 1.0)
        })
    }

    /// Takes the running statistics back to `before` where the gradient was not finite.
    fn keep_statistics(&self, before: &Tensor, finite: &Tensor) {
        let statistics = &self.networks.student.flat_statistics;
        no_grad(|| statistics.shallow_clone().copy_(&statistics.where_self(finite, before)));
    }
}

/// Whether all `values` are finite, and where one stands that is not. The largest and the smallest tell: of values that are
/// not numbers, both are the first.
fn finite(values: &Tensor) -> (Tensor, Tensor) {
    let ((largest, at_largest), (smallest, at_smallest)) = (values.max_dim(0, false), values.min_dim(0, false));
    let bounded = largest.isfinite();
    (bounded.logical_and(&smallest.isfinite()), at_smallest.where_self(&bounded, &at_largest))
}

#[cfg(test)]
mod tests;
