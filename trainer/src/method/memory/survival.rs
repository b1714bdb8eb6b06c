//! The weights of classes by the attack steps that they survive (Yue et al., NeurIPS 2023: Fair-ARD).

use tch::{Device, Kind, Tensor};

use super::state::{set, zeros};
use crate::config::ClassWeights;

/// The weight of each class, and the survived steps of the epoch so far.
pub struct Survival {
    config: ClassWeights,
    /// `[classes]`.
    weights: Tensor,
    /// The survived steps of each class's samples, then the number of all samples: `[classes + 1]`.
    survived: Tensor,
}

impl Survival {
    pub(super) fn new(config: ClassWeights, classes: i64, device: Device) -> Self {
        let weights = zeros(&[classes], device).ones_like();
        Self { config, weights, survived: zeros(&[classes + 1], device) }
    }

    /// The weight of each sample, `[N]`.
    pub fn factor(&self, labels: &Tensor, kind: Kind) -> Tensor {
        self.weights.index_select(0, labels).to_kind(kind)
    }

    pub(super) fn sums(&self, labels: &Tensor, survived: Option<&Tensor>) -> Tensor {
        let (mut sums, classes) = (self.survived.zeros_like(), self.weights.size()[0]);
        if let Some(survived) = survived {
            let all = labels.full_like(classes);
            sums = sums.index_add(0, labels, &survived.to_kind(Kind::Double));
            sums = sums.index_add(0, &all, &all.ones_like().to_kind(Kind::Double));
        }
        sums
    }

    pub(super) fn count(&self) -> i64 {
        self.survived.size()[0]
    }

    pub(super) fn keep(&self, sums: &Tensor) {
        let _ = self.survived.shallow_clone().g_add_(sums);
    }

    pub(super) fn after_epoch(&self) {
        let classes = self.weights.size()[0];
        let samples = self.survived.get(classes).clamp_min(1.0);
        let kappa = self.survived.narrow(0, 0, classes) / (samples / classes as f64);
        set(&self.weights, &class_weights(&kappa, self.config));
        set(&self.survived, &self.survived.zeros_like());
    }

    pub(super) fn tensors(&self) -> [(&'static str, &Tensor); 2] {
        [("class_weights", &self.weights), ("survived", &self.survived)]
    }
}

/// The weights `[classes]` from the mean survived steps `kappa [classes]`: not brought to the mean 1 again after the cut.
pub(super) fn class_weights(kappa: &Tensor, config: ClassWeights) -> Tensor {
    let share = (kappa + 1e-5).pow_tensor_scalar(-config.exponent);
    let classes = kappa.size()[0] as f64;
    (&share * classes / share.sum(Kind::Double)).clamp(config.least, config.most)
}
