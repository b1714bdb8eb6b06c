//! GradAlign (Andriushchenko and Flammarion, NeurIPS 2020): the gradient of the loss at an image is drawn to the direction of
//! that at a random point near it, so that a single step of an attack stays a good one.

use tch::{Kind, Tensor};

use crate::config::{GradAlign, Images, RunConfig, Target, Term};
use crate::method::attack::Noise;
use crate::method::loss::log_probability_of;
use crate::method::networks::Networks;
use crate::model::Mode;
use crate::step::batch::Batch;

/// The regulariser of a run's steps.
pub(super) struct GradientAlignment {
    /// Its name and weight, as a term of the loss.
    pub(super) term: Term,
    /// The radius of the random points.
    eps: f64,
}

impl GradientAlignment {
    /// The regulariser that `config` asks for.
    pub(super) fn new(config: &RunConfig) -> Option<Self> {
        let GradAlign { weight } = config.grad_align?;
        let term = Term { weight, ..Term::plain(GradAlign::NAME, Images::Natural, Target::Label) };
        Some(Self { term, eps: config.attack.eps.0 })
    }

    /// The regulariser's part for the samples of this rank: the weight times the sum of 1 - cos over them, divided by the
    /// number of samples on all ranks. Batch norm takes the statistics of the batch and leaves the running ones.
    pub(super) fn evaluate(&self, networks: &Networks, batch: &Batch, noise: &Noise) -> Tensor {
        let images = &batch.images;
        let near = images + self.shift(images, noise);
        let gradient = |images, differentiable| gradient(networks, images, &batch.labels, differentiable);
        let misaligned = misalignment(&gradient(images, false), &gradient(&near, true));
        (misaligned.sum(Kind::Double) * (self.term.weight / batch.global_count as f64)).to_kind(images.kind())
    }

    /// Uniform in the ball of the maximum norm: random numbers of each sample behind those of the attack's start.
    fn shift(&self, images: &Tensor, noise: &Noise) -> Tensor {
        let pixels: i64 = images.size()[1..].iter().product();
        (noise.uniform_from(pixels + 1, pixels, images.kind()).view_as(images) * 2.0 - 1.0) * self.eps
    }
}

/// The gradient of cross-entropy at `images`, with respect to them.
fn gradient(networks: &Networks, images: &Tensor, labels: &Tensor, differentiable: bool) -> Tensor {
    let variable = images.detach().set_requires_grad(true);
    let logits = networks.precision.logits(&networks.student, &variable, Mode::TrainFrozen);
    let loss = -log_probability_of(&logits, labels).sum(logits.kind());
    Tensor::run_backward(&[loss], &[&variable], differentiable, differentiable).remove(0)
}

/// 1 - cos between the gradients of each sample, `[N]` in float64; 0 where one of the two is 0. Its own gradient flows through
/// `near` alone.
fn misalignment(fixed: &Tensor, near: &Tensor) -> Tensor {
    let flat = |gradient: &Tensor| gradient.to_kind(Kind::Double).flatten(1, -1);
    let (fixed, near) = (flat(&fixed.detach()), flat(near));
    let dot = |one: &Tensor, other: &Tensor| (one * other).sum_dim_intlist(1i64, true, Kind::Double);
    let sound = (dot(&fixed, &fixed) * dot(&near, &near)).detach().gt(0.0);
    // Two equal vectors stand for those without a direction.
    let (fixed, near) = (fixed.where_self(&sound, &fixed.ones_like()), near.where_self(&sound, &near.ones_like()));
    let cosine = dot(&fixed, &near) / (dot(&fixed, &fixed).sqrt() * dot(&near, &near).sqrt());
    let misaligned: Tensor = (1.0 - cosine) * sound;
    misaligned.squeeze_dim(1)
}

#[cfg(test)]
mod tests;
