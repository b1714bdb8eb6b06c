//! SGD and AdamW over flat buffers.

mod clip;
mod decay;

pub(crate) use self::clip::norm;

use std::sync::Arc;

use tch::{Kind, Tensor, no_grad};
use torch_ext::{Judged, Kernels};

use crate::config::{LrPolicy, OneCycleCosine, OptimizerConfig, OptimizerKind};
use crate::model::Model;
use crate::step::gradients::Gradients;

/// A learning rate.
#[derive(Debug, Clone, Copy)]
pub enum Rate<'a> {
    /// A number on the host.
    Number(f64),
    /// A scalar on the device, of the parameters' type; captured work reads it at each replay. libtorch's fused kernel
    /// on GPUs accepts it only in float32.
    OnDevice(&'a Tensor),
}

/// The optimizer's rule and its state. Everything a step computes stays on the device.
pub struct Optimizer {
    /// SGD's momentum buffer, which stays 0 if the momentum is 0, or AdamW's mean of the gradients. In the order of
    /// the parameters.
    pub velocity: Tensor,
    rule: Rule,
    /// The weight decay of all values; 0 if some have none, and `decays` has that of each.
    weight_decay: f64,
    largest_decay: f64,
    /// The weight decay of each value, if some have none.
    decays: Option<Tensor>,
    /// The largest norm of the gradient.
    clip: Option<f64>,
    /// Fused kernels, if there are some.
    kernels: Option<Arc<Kernels>>,
}

enum Rule {
    /// PyTorch's SGD without dampening: g += decay * w; v = momentum * v + g; w -= rate * v. Nesterov's step is
    /// g + momentum * v.
    Sgd { momentum: f64, nesterov: bool },
    /// The same with a momentum that the schedule changes, as a scalar on the device.
    CycledSgd { momentum: Tensor, nesterov: bool },
    /// PyTorch's AdamW, with the mean of the squared gradients and the number of updates so far.
    AdamW { squares: Tensor, updates: Tensor, betas: [f64; 2], eps: f64 },
}

impl Optimizer {
    /// The optimizer that `config` asks for, for the `parameters` of `model`, at its beginning.
    pub fn new(config: &OptimizerConfig, parameters: &Gradients, model: &Model) -> Self {
        let values = &parameters.values;
        let scalar = |kind| Tensor::zeros([], (kind, values.device()));
        let OptimizerConfig { momentum, nesterov, betas, eps, weight_decay, .. } = *config;
        let cycles = matches!(config.lr_policy, LrPolicy::OneCycleCosine(OneCycleCosine { cycle_momentum: true, .. }));
        let rule = match config.kind {
            OptimizerKind::Sgd if cycles => Rule::CycledSgd { momentum: scalar(values.kind()), nesterov },
            OptimizerKind::Sgd => Rule::Sgd { momentum, nesterov },
            OptimizerKind::AdamW => {
                Rule::AdamW { squares: values.zeros_like(), updates: scalar(Kind::Float), betas, eps }
            }
        };
        let decays = (!config.no_weight_decay.is_empty() && weight_decay > 0.0)
            .then(|| decay::of_each_value(model, values, weight_decay, &config.no_weight_decay));
        Self {
            velocity: values.zeros_like(),
            rule,
            weight_decay: if decays.is_some() { 0.0 } else { weight_decay },
            largest_decay: weight_decay,
            decays,
            clip: config.clip_grad_norm,
            kernels: None,
        }
    }

    /// The same, with fused kernels where they fit.
    pub fn fused(self, kernels: Option<Arc<Kernels>>) -> Self {
        Self { kernels, ..self }
    }

    /// Whether the gradients are finite, the place of one that is not, and a bound as of [`bound`](Self::bound), in one pass of
    /// a fused kernel; none where it does not fit.
    pub fn judge(&self, parameters: &Gradients) -> Option<(Tensor, Tensor, Tensor)> {
        let Gradients { values, gradients, .. } = parameters;
        let Rule::Sgd { momentum, .. } = self.rule else { return None };
        let Judged { largest, place } = self.kernels.as_ref()?.sgd_judge(values, gradients, &self.velocity)?;
        let [of_gradients, of_velocity, of_values] = [0, 1, 2].map(|which| largest.get(which));
        let bound = of_velocity * momentum + of_values * self.largest_decay + &of_gradients;
        Some((of_gradients.isfinite(), place, bound))
    }

    /// Sets the momentum of the next step, if the schedule changes it.
    pub fn set_momentum(&mut self, momentum: Option<f64>) {
        if let (Rule::CycledSgd { momentum: scalar, .. }, Some(momentum)) = (&mut self.rule, momentum) {
            let _ = scalar.fill_(momentum);
        }
    }

    /// The number of updates so far, a scalar, where the rule counts them.
    pub fn updates(&self) -> Option<&Tensor> {
        match &self.rule {
            Rule::AdamW { updates, .. } => Some(updates),
            Rule::Sgd { .. } | Rule::CycledSgd { .. } => None,
        }
    }

    /// Sets the number of updates so far.
    pub fn resume_after(&mut self, steps: u64) {
        if let Rule::AdamW { updates, .. } = &mut self.rule {
            let _ = updates.fill_(steps as i64);
        }
    }

    /// The buffers of the state, each in the order of the parameters, under their names in a checkpoint.
    pub fn buffers(&self) -> Vec<(&'static str, &Tensor)> {
        match &self.rule {
            Rule::Sgd { .. } | Rule::CycledSgd { .. } => vec![("momentum", &self.velocity)],
            Rule::AdamW { squares, .. } => vec![("exp_avg", &self.velocity), ("exp_avg_sq", squares)],
        }
    }

    /// A bound of every value that the next step may leave in the state, a scalar: not finite if one could overflow. The
    /// host does not take part.
    pub fn bound(&self, parameters: &Gradients) -> Tensor {
        let largest = |values: &Tensor| {
            // Over all of them: along a dimension libtorch compares one by one on a CPU.
            let (smallest, largest) = values.aminmax(None::<i64>, false);
            largest.maximum(&-smallest)
        };
        let Gradients { values, gradients, .. } = parameters;
        match &self.rule {
            Rule::Sgd { momentum, .. } => {
                largest(&self.velocity) * *momentum + largest(values) * self.largest_decay + largest(gradients)
            }
            Rule::CycledSgd { .. } => {
                largest(&self.velocity) + largest(values) * self.largest_decay + largest(gradients)
            }
            Rule::AdamW { squares, .. } => largest(&self.velocity) + largest(squares) + largest(gradients).square(),
        }
    }

    /// Updates the parameters in place. If `finite`, a bool scalar on the device, is false, parameters and state keep
    /// their values; the host does not take part.
    pub fn step(&mut self, parameters: &mut Gradients, rate: Rate, finite: &Tensor) {
        let Gradients { values, gradients, .. } = parameters;
        if let Some(norm) = self.clip {
            clip::to_norm(gradients, norm);
        }
        let stay = finite.logical_not().to_kind(Kind::Float);
        let (rate, rate_on_device) = match rate {
            // Rounded like a scalar on the device, and like the rate of PyTorch's SGD without `fused`.
            Rate::Number(rate) if values.kind() == Kind::Float => (f64::from(rate as f32), None),
            Rate::Number(rate) => (rate, None),
            Rate::OnDevice(rate) => (f64::NAN, Some(rate)),
        };
        let shrinks = matches!(self.rule, Rule::AdamW { .. });
        match &self.decays {
            Some(decays) if shrinks => decay::shrink(values, decays, rate, rate_on_device, finite),
            Some(decays) => decay::add(gradients, values, decays),
            None => {}
        }
        let weight_decay = self.weight_decay;
        match &mut self.rule {
            Rule::Sgd { momentum, nesterov } => {
                let numbers = torch_ext::Sgd { rate, momentum: *momentum, nesterov: *nesterov, weight_decay };
                let fused = self.kernels.as_ref().filter(|_| *momentum != 0.0 && values.kind() == Kind::Float);
                let updated = fused.is_some_and(|kernels| {
                    let rate = rate_on_device
                        .map_or_else(|| Tensor::full([], rate, (Kind::Float, values.device())), Tensor::shallow_clone);
                    kernels.sgd_update([values, gradients, &self.velocity], finite, &rate, numbers)
                });
                if updated {
                    return;
                }
                torch_ext::fused_sgd(values, gradients, &self.velocity, &stay, numbers, rate_on_device);
            }
            Rule::CycledSgd { momentum, nesterov } => no_grad(|| {
                let gradient = &*gradients + &*values * weight_decay;
                let velocity = &self.velocity * &*momentum + &gradient;
                let along = if *nesterov { gradient + &velocity * &*momentum } else { velocity.shallow_clone() };
                let moved = match rate_on_device {
                    Some(rate) => &*values - along * rate,
                    None => &*values - along * rate,
                };
                values.copy_(&moved.where_self(finite, values));
                self.velocity.copy_(&velocity.where_self(finite, &self.velocity));
            }),
            Rule::AdamW { squares, updates, betas, eps } => {
                let _ = updates.g_add_(&(1.0 - &stay));
                let numbers = torch_ext::AdamW { rate, betas: *betas, eps: *eps, weight_decay };
                let moments = [&self.velocity, &*squares];
                torch_ext::fused_adamw([values, gradients], moments, updates, &stay, numbers, rate_on_device);
            }
        }
    }
}

#[cfg(test)]
mod tests;
