//! Adversarial weight perturbation (Wu, Xia and Wang, NeurIPS 2020): the gradient of a step is taken at weights that were
//! moved up the loss, and the move is taken back after the update.
//!
//! A weight tensor w moves by gamma ||w|| g / ||g||, where g is the gradient of the loss over the global batch. It is summed
//! over the ranks before its norm is taken, so all ranks move alike. As in the authors' code, weight decay sees the moved
//! weights.

use tch::{Kind, Tensor, no_grad};

use super::gradients::Gradients;
use super::optimizer::norm;
use crate::config::RunConfig;
use crate::model::Model;

/// Keeps a weight without a gradient where it is. The constant is that of the authors' code.
const TINY: f64 = 1e-20;

/// The perturbation of a run's steps.
#[derive(Default)]
pub struct WeightPerturbation {
    gamma: f64,
    /// Whether steps perturb now.
    pub(super) active: bool,
    moved: Option<Moved>,
}

/// The parameters before the perturbation, and what was added to them, both flat.
struct Moved {
    before: Tensor,
    by: Tensor,
}

impl WeightPerturbation {
    /// The perturbation that `config` asks for.
    pub(super) fn new(config: &RunConfig) -> Self {
        let gamma = config.awp.map_or(0.0, |awp| awp.gamma);
        Self { gamma, active: config.perturbs_weights(0), moved: None }
    }

    /// Begins a step: a capture that failed may have left tensors that nothing computed.
    pub(super) fn begin(&mut self) {
        self.moved = None;
    }

    /// Moves each weight of more than one axis along its gradient. Biases and batch norm stay.
    pub(super) fn perturb(&mut self, parameters: &Gradients, model: &Model) {
        let Gradients { values, gradients, .. } = parameters;
        let (before, by) = (values.copy(), values.zeros_like());
        let mut offset = 0;
        for named in &model.parameters {
            let count = named.tensor.numel() as i64;
            if named.tensor.dim() > 1 && named.name.contains("weight") {
                let of = |flat: &Tensor| flat.narrow(0, offset, count);
                let gradient = of(gradients);
                let share = norm(&of(&before)) / (norm(&gradient) + TINY) * self.gamma;
                of(&by).copy_(&(gradient.to_kind(Kind::Double) * share));
            }
            offset += count;
        }
        let _ = no_grad(|| values.shallow_clone().g_add_(&by));
        self.moved = Some(Moved { before, by });
    }

    /// Takes the perturbation back from updated parameters. Where the step does not move (`moves` is a bool scalar), they are
    /// those before it, to the bit.
    pub(super) fn take_back(&mut self, parameters: &Gradients, moves: &Tensor) {
        if let Some(Moved { before, by }) = self.moved.take() {
            let values = &parameters.values;
            no_grad(|| values.shallow_clone().copy_(&(values - by).where_self(moves, &before)));
        }
    }

    /// Gives the parameters of a step that was given up the values before it.
    pub(super) fn give_up(&mut self, parameters: &Gradients) {
        if let Some(Moved { before, .. }) = self.moved.take() {
            no_grad(|| parameters.values.shallow_clone().copy_(&before));
        }
    }
}
