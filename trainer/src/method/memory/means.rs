//! The mean prediction of each class (Cui et al., NeurIPS 2024: DKL).

use tch::{Device, Kind, Tensor};

use super::state::{set, zeros};
use crate::config::ClassMeans;

/// The mean predictions that count in this epoch, and the sums of the epoch so far.
pub struct Means {
    config: ClassMeans,
    /// A row for each class, `[classes, classes]`.
    means: Tensor,
    /// The sums of predictions, a row for each class, and in the last column the samples: `[classes, classes + 1]`.
    sums: Tensor,
}

impl Means {
    pub(super) fn new(config: ClassMeans, classes: i64, device: Device) -> Self {
        let means = zeros(&[classes, classes], device) + 1.0 / classes as f64;
        Self { config, means, sums: zeros(&[classes, classes + 1], device) }
    }

    /// The weights s of the classes for each sample, `[N, classes]`.
    pub fn of(&self, labels: &Tensor, kind: Kind) -> Tensor {
        self.means.index_select(0, labels).pow_tensor_scalar(self.config.exponent).to_kind(kind)
    }

    /// Whether the divergence is divided by the sum over the global batch of (sum of s)^2.
    pub fn normalized(&self) -> bool {
        self.config.normalized
    }

    pub(super) fn sums(&self, labels: &Tensor, natural: Option<&Tensor>) -> Tensor {
        let Some(natural) = natural else { return self.sums.zeros_like().flatten(0, -1) };
        let predictions = (natural.to_kind(Kind::Double) / self.config.temperature).softmax(1, Kind::Double);
        let rows = Tensor::cat(&[&predictions, &predictions.narrow(1, 0, 1).ones_like()], 1);
        self.sums.zeros_like().index_add(0, labels, &rows).flatten(0, -1)
    }

    pub(super) fn count(&self) -> i64 {
        self.sums.numel() as i64
    }

    pub(super) fn keep(&self, sums: &Tensor) {
        let _ = self.sums.shallow_clone().g_add_(&sums.view_as(&self.sums));
    }

    /// A class without samples keeps its mean.
    pub(super) fn after_epoch(&self) {
        let classes = self.means.size()[0];
        let samples = self.sums.narrow(1, classes, 1);
        let fresh = self.sums.narrow(1, 0, classes) / samples.clamp_min(1.0);
        set(&self.means, &fresh.where_self(&samples.gt(0.0), &self.means));
        set(&self.sums, &self.sums.zeros_like());
    }

    pub(super) fn tensors(&self) -> [(&'static str, &Tensor); 2] {
        [("class_means", &self.means), ("class_sums", &self.sums)]
    }
}
