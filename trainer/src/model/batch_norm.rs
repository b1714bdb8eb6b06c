//! Batch normalisation by the batch, over the ranks, by the running statistics, or folded into the convolution before
//! it.

use std::cell::OnceCell;
use std::sync::{Arc, OnceLock};

use tch::{Kind, Tensor, no_grad};
use torch_ext::{Finished, Kernels, Layer, StatisticsRanks, Sum};

use crate::model::Mode;
use crate::model::layers::Convolution;

/// How batch norms reach the other ranks.
#[derive(Clone)]
pub struct OverRanks {
    /// Adds up a tensor over the ranks.
    pub sum: Sum,
    /// The ranks for libtorch's fused kernels; without it, statistics are added up in double precision.
    pub fused: Option<Arc<StatisticsRanks>>,
}

/// Batch normalisation with PyTorch's constants: epsilon 1e-5, momentum 0.1.
pub struct BatchNorm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) running_mean: Tensor,
    pub(super) running_variance: Tensor,
    pub(super) over_ranks: Option<OverRanks>,
    pub(super) folds: Arc<OnceLock<Kind>>,
    pub(super) fuses: Arc<OnceLock<Arc<Kernels>>>,
    /// Weight and bias of the preceding convolution with this batch norm folded in.
    pub(super) folded: OnceCell<(Tensor, Tensor)>,
}

impl BatchNorm {
    const EPSILON: f64 = 1e-5;
    pub(super) const MOMENTUM: f64 = 0.1;

    /// Normalises `[N, C, H, W]` by the batch's statistics (training) or the running ones (evaluation).
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Tensor {
        self.fused(images, None, false, mode).unwrap_or_else(|| self.forward_alone(images, mode))
    }

    /// The same, through a ReLU.
    pub fn forward_relu(&self, images: &Tensor, mode: Mode) -> Tensor {
        self.fused(images, None, true, mode).unwrap_or_else(|| self.forward_alone(images, mode).relu())
    }

    /// A convolution, this batch norm, the addition of `addend` if there is one, and a ReLU; see [`after`](Self::after).
    pub fn after_relu(
        &self,
        convolution: &Convolution,
        images: &Tensor,
        addend: Option<&Tensor>,
        mode: Mode,
    ) -> Tensor {
        let add = |map: Tensor| addend.map_or_else(|| map.shallow_clone(), |addend| &map + addend);
        if mode == Mode::Eval {
            return add(self.after(convolution, images, mode)).relu();
        }
        let map = convolution.forward(images);
        self.fused(&map, addend, true, mode).unwrap_or_else(|| add(self.forward_alone(&map, mode)).relu())
    }

    /// Batch norm by the batch's statistics, the addition and the ReLU by fused kernels, if there are some and they fit.
    fn fused(&self, images: &Tensor, addend: Option<&Tensor>, relu: bool, mode: Mode) -> Option<Tensor> {
        let kernels = self.fuses.get().filter(|_| mode != Mode::Eval)?;
        let (weight, bias, sum) = (&self.weight, &self.bias, self.over_ranks.as_ref().map(|over| &over.sum));
        let layer = Layer { weight, bias, epsilon: Self::EPSILON, addend, relu, sum };
        let Finished { output, mean, variance, count } = kernels.batch_norm(images, &layer)?;
        if mode == Mode::Train {
            self.update(&mean, &variance, &count);
        }
        Some(output)
    }

    fn forward_alone(&self, images: &Tensor, mode: Mode) -> Tensor {
        match (&self.over_ranks, mode) {
            (_, Mode::Eval) => self.normalise(images, true, false),
            // The fused kernels divide by n - 1, and one image of one pixel would make that 0.
            (Some(OverRanks { fused: Some(ranks), .. }), _) if images.size()[2..] != [1, 1] => {
                let running = (mode == Mode::Train).then_some([&self.running_mean, &self.running_variance]);
                let parameters = [&self.weight, &self.bias];
                torch_ext::fused_batch_norm(images, parameters, running, Self::MOMENTUM, Self::EPSILON, ranks)
            }
            (Some(OverRanks { sum, .. }), _) => self.across_ranks(images, mode, sum),
            // An empty batch has no statistics: the running statistics keep their values.
            (None, _) if images.size()[0] == 0 => self.normalise(images, true, false),
            (None, _) => self.normalise(images, mode == Mode::Train, true),
        }
    }

    /// A convolution followed by this batch norm; the two must always be used together. With frozen weights one
    /// convolution replaces both: w' = w g / sqrt(v + epsilon) and b' = b - m g / sqrt(v + epsilon).
    pub fn after(&self, convolution: &Convolution, images: &Tensor, mode: Mode) -> Tensor {
        let Some(&kind) = self.folds.get().filter(|_| mode == Mode::Eval) else {
            return self.forward(&convolution.forward(images), mode);
        };
        let (weight, bias) = self.folded.get_or_init(|| {
            no_grad(|| {
                // In double precision, so that the factor itself adds no error.
                let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
                let factor = double(&self.weight) / (double(&self.running_variance) + Self::EPSILON).sqrt();
                let weight = double(&convolution.weight) * factor.view([-1, 1, 1, 1]);
                let bias = double(&self.bias) - double(&self.running_mean) * factor;
                (weight.to_kind(kind), bias.to_kind(kind))
            })
        });
        convolution.with(images, weight, Some(bias))
    }

    fn normalise(&self, images: &Tensor, with_running: bool, training: bool) -> Tensor {
        let (mean, variance) = (&self.running_mean, &self.running_variance);
        let (mean, variance) = if with_running { (Some(mean), Some(variance)) } else { (None, None) };
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        images.batch_norm(weight, bias, mean, variance, training, Self::MOMENTUM, Self::EPSILON, false)
    }

    fn across_ranks(&self, images: &Tensor, mode: Mode, sum: &Sum) -> Tensor {
        let normalised = torch_ext::batch_norm_across_ranks(images, &self.weight, &self.bias, Self::EPSILON, sum);
        if mode == Mode::Train {
            self.update(&normalised.mean, &normalised.variance, &normalised.count);
        }
        normalised.output
    }

    /// Moves the running statistics towards those of a batch of `count` values, whose variance is the biased one.
    fn update(&self, mean: &Tensor, variance: &Tensor, count: &Tensor) {
        no_grad(|| {
            let unbiased = count / (count - 1.0).clamp_min(1.0);
            let variance = variance * unbiased.to_kind(variance.kind());
            let _ = self.running_mean.shallow_clone().lerp_(mean, Self::MOMENTUM);
            let _ = self.running_variance.shallow_clone().lerp_(&variance, Self::MOMENTUM);
        });
    }
}
