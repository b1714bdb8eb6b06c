//! Labels mixed with a network's prediction (Wu et al., ICLR 2024: ADR).

use tch::{Device, Kind, Tensor, no_grad};

use super::state::zeros;
use crate::config::Rectify;

/// The mixture in place of labels. Temperature and weight of a step follow from its position in the run.
pub struct Rectified {
    config: Rectify,
    temperature: Tensor,
    weight: Tensor,
}

impl Rectified {
    pub(super) fn new(config: Rectify, device: Device) -> Self {
        let ([temperature, weight], scalar) = (config.at(0, 1), || zeros(&[], device));
        Self { config, temperature: scalar() + temperature, weight: scalar() + weight }
    }

    /// The network whose prediction on natural images is mixed in.
    pub fn network(&self) -> &str {
        &self.config.network
    }

    pub(super) fn begin_step(&self, step: u64, steps: u64) {
        let [temperature, weight] = self.config.at(step, steps);
        let _ = no_grad(|| self.temperature.shallow_clone().fill_(temperature));
        let _ = no_grad(|| self.weight.shallow_clone().fill_(weight));
    }

    /// The distributions `[N, classes]` in place of `labels [N]`, from the network's logits on natural images.
    pub fn labels(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        let kind = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        no_grad(|| {
            let prediction = (logits / &self.temperature).softmax(1, kind);
            let label = labels.unsqueeze(1);
            let short = prediction.amax(1i64, true) - prediction.gather(1, &label, false);
            let mix = (&self.weight - short).clamp(0.0, 1.0).to_kind(kind);
            let one_hot = prediction.zeros_like().scatter_value(1, &label, 1.0);
            prediction * &mix + one_hot * (1.0 - &mix)
        })
    }
}
