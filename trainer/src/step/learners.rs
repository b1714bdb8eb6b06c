//! Networks that learn beside the student: their parameters, gradients and optimizers. Their terms are summands of the one loss
//! of a step, so one backward pass fills all gradients; sums over the ranks, guards and updates follow in turn.

use std::sync::Arc;

use anyhow::{Context, Result};
use comm::Communicator;
use tch::Tensor;
use torch_ext::is_recording;

use super::gradients::Gradients;
use super::optimizer::{Optimizer, Rate};
use crate::config::{OptimizerConfig, RunConfig};
use crate::method::networks::Networks;

/// A network that learns beside the student.
pub struct Learner {
    /// Its name in the configuration.
    pub name: String,
    /// Its parameters and gradients.
    pub parameters: Gradients,
    /// Its optimizer with its state.
    pub optimizer: Optimizer,
    config: OptimizerConfig,
    from_epoch: u64,
    /// The learning rate of the next step; none where it does not move.
    rate: Option<f64>,
    /// The same for captured work, a scalar of the parameters' type.
    rate_on_device: Tensor,
}

/// Where a step lies in its run.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its epoch, and how many steps of the run lie before it.
    pub epoch: u64,
    /// Steps of the run before it.
    pub step: u64,
    /// Epochs of the run.
    pub epochs: u64,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// Images of a step over all ranks.
    pub global_batch: usize,
    /// The factor of all learning rates.
    pub rate_factor: f64,
}

impl Learner {
    /// The learners of `networks`, in the order of their names. Every rank starts from the parameters of rank 0.
    ///
    /// # Errors
    /// A failure of the transport.
    pub(super) fn all(config: &RunConfig, networks: &mut Networks, ranks: &Arc<dyn Communicator>) -> Result<Vec<Self>> {
        let learner = |(name, own): (&String, &crate::config::Learner)| {
            let model = networks.learners.get_mut(name).with_context(|| format!("the learner {name} was not built"))?;
            let mut parameters = Gradients::flatten(model, Arc::clone(ranks), &config.comm)?;
            // The sums of two networks would start in an order that timing decides.
            parameters.sum_at_the_end();
            parameters.take_time_from(&networks.timeline)?;
            let config = config.optimizer_of(own).clone();
            let optimizer = Optimizer::new(&config, &parameters, model);
            let rate_on_device = Tensor::full([], config.lr, (parameters.values.kind(), parameters.values.device()));
            let (name, rate, from_epoch) = (name.clone(), Some(config.lr), own.from_epoch);
            Ok(Self { name, parameters, optimizer, config, from_epoch, rate, rate_on_device })
        };
        config.learners.iter().map(learner).collect()
    }

    /// Sets its learning rate of the step at `place`, and its momentum if the schedule changes it.
    pub fn begin_step(&mut self, place: Place) {
        let Place { epoch, step, epochs, steps_per_epoch, global_batch, rate_factor } = place;
        let Some(own_epoch) = epoch.checked_sub(self.from_epoch) else {
            self.rate = None;
            return;
        };
        let rates = self.config.schedule(epochs - self.from_epoch, steps_per_epoch, global_batch);
        let own_step = step - self.from_epoch * steps_per_epoch;
        let rate = rates.rate(own_epoch, own_step) * rate_factor;
        self.rate = Some(rate);
        let _ = self.rate_on_device.fill_(rate);
        self.optimizer.set_momentum(rates.momentum(own_epoch, own_step));
    }

    /// Whether it moves in the next step.
    pub(super) fn moves(&self) -> bool {
        self.rate.is_some()
    }

    /// Moves its parameters, where it learns in this step and the step `moves` (bool scalar).
    pub(super) fn step(&mut self, moves: &Tensor) {
        let Some(rate) = self.rate else { return };
        let rate = if is_recording() { Rate::OnDevice(&self.rate_on_device) } else { Rate::Number(rate) };
        self.optimizer.step(&mut self.parameters, rate, moves);
    }
}
