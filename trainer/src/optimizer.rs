//! Stochastic gradient descent with momentum over flat buffers.

use tch::{Kind, Tensor};

use crate::gradients::Gradients;

/// A learning rate.
#[derive(Debug, Clone, Copy)]
pub enum Rate<'a> {
    /// A number of the host.
    Number(f64),
    /// A scalar on the device, of the type of the parameters (libtorch's update on GPUs takes float32 alone): what is recorded
    /// reads it when it is replayed.
    OnDevice(&'a Tensor),
}

/// PyTorch's SGD without dampening and Nesterov: g += decay * w; v = momentum * v + g; w -= rate * v. All parameters decay,
/// biases and batch norm included.
pub struct Sgd {
    /// The momentum buffer, in the order of the parameters; with momentum 0 it stays 0.
    pub velocity: Tensor,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    /// An optimizer at rest for parameters in the shape of `values`.
    pub fn new(values: &Tensor, momentum: f64, weight_decay: f64) -> Self {
        Self { velocity: values.zeros_like(), momentum, weight_decay }
    }

    /// Moves the parameters against their gradients, in place and in one pass. Where `finite` (a bool scalar on the device) is
    /// false, parameters and momentum stay as they are, without a word to the host.
    pub fn step(&mut self, parameters: &mut Gradients, rate: Rate, finite: &Tensor) {
        let stay = finite.logical_not().to_kind(Kind::Float);
        let (rate, rate_on_device) = match rate {
            // As a scalar on the device is rounded, and as PyTorch's SGD without `fused` rounds its rate.
            Rate::Number(rate) if parameters.values.kind() == Kind::Float => (f64::from(rate as f32), None),
            Rate::Number(rate) => (rate, None),
            Rate::OnDevice(rate) => (f64::NAN, Some(rate)),
        };
        let numbers = torch_ext::Sgd { rate, momentum: self.momentum, weight_decay: self.weight_decay };
        let Gradients { values, gradients, .. } = parameters;
        torch_ext::fused_sgd(values, gradients, &self.velocity, &stay, numbers, rate_on_device);
    }
}

#[cfg(test)]
mod tests;
