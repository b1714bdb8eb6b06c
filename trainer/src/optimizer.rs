//! Stochastic gradient descent with momentum over flat buffers.

use tch::{Tensor, no_grad};

use crate::gradients::Gradients;

/// PyTorch's SGD without dampening and Nesterov: g += decay * w; v = momentum * v + g; w -= rate * v. All parameters decay,
/// biases and batch norm included.
pub struct Sgd {
    /// The momentum buffer, in the order of the parameters.
    pub velocity: Tensor,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    /// An optimizer at rest for parameters in the shape of `values`.
    pub fn new(values: &Tensor, momentum: f64, weight_decay: f64) -> Self {
        Self { velocity: values.zeros_like(), momentum, weight_decay }
    }

    /// Moves the parameters against their gradients. Where `finite` (a bool scalar on the device) is false, parameters and
    /// momentum stay as they are, without a word to the host.
    pub fn step(&mut self, parameters: &mut Gradients, rate: f64, finite: &Tensor) {
        no_grad(|| {
            let moved =
                &self.velocity * self.momentum + (&parameters.gradients + &parameters.values * self.weight_decay);
            self.velocity.copy_(&moved.where_self(finite, &self.velocity));
            let _ = parameters.values.g_sub_(&(&self.velocity * (finite.to_kind(self.velocity.kind()) * rate)));
        });
    }
}
