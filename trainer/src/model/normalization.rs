//! The normalisation of images inside a network, before its first layer.

use tch::Tensor;

use super::builder::Builder;

/// Mean and standard deviation of each channel, float, `[C]`. They are stored with the weights and never trained.
pub(super) struct Normalization {
    mean: Tensor,
    deviation: Tensor,
}

impl Normalization {
    /// These numbers under the names of the reference's normalising networks.
    pub(super) fn new(layers: &mut Builder, mean: &[f64], deviation: &[f64]) -> Self {
        Self { mean: layers.constant("normalize.mean", mean), deviation: layers.constant("normalize.std", deviation) }
    }

    /// `(images - mean) / deviation` of `[N, C, H, W]`.
    pub(super) fn forward(&self, images: &Tensor) -> Tensor {
        let over_channels = |values: &Tensor| values.view([1, -1, 1, 1]);
        (images - over_channels(&self.mean)) / over_channels(&self.deviation)
    }
}
