//! Projected gradient ascent in a ball (Madry et al. 2018; AttackPGD of the reference scripts).

use std::sync::Arc;

use tch::{Tensor, no_grad};
use torch_ext::Kernels;

use crate::config::{AttackConfig, Norm, Start};
use crate::method::attack::{Attack, Ball, Noise};

/// Takes steps along the steepest direction (in L-infinity the sign of the gradient). Each step is projected onto the
/// ball and onto [0, 1].
#[derive(Debug, Clone)]
pub struct Pgd {
    /// The ball of the search.
    pub ball: Ball,
    /// Length of a step in the ball's norm, in units of the pixel range [0, 1].
    pub step: f64,
    /// The number of steps.
    pub steps: usize,
    /// The start.
    pub start: Start,
    /// Whether the start is clamped to [0, 1] before the first gradient (the reference's distillation scripts do not).
    pub clamp_start: bool,
}

impl Attack for Pgd {
    fn perturb(&self, images: &Tensor, noise: &Noise, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let images = &images.detach();
        self.ascend(images, self.start(images, noise), objective)
    }
}

/// The same search, whose steps are taken by a fused kernel where it can.
struct FusedPgd {
    pgd: Pgd,
    kernels: Arc<Kernels>,
}

impl Attack for FusedPgd {
    fn perturb(&self, images: &Tensor, noise: &Noise, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let Self { pgd, kernels } = self;
        let images = &images.detach();
        pgd.climb(images, pgd.start(images, noise), objective, |candidate, gradient| {
            kernels.attack_step(candidate, gradient, images, pgd.step, pgd.ball.eps)
        })
    }
}

impl Pgd {
    /// This search, with its steps taken by `kernels` if there are some for its norm.
    pub fn fused(self, kernels: Option<&Arc<Kernels>>) -> Box<dyn Attack> {
        match kernels.filter(|_| self.ball.norm == Norm::Linf) {
            Some(kernels) => Box::new(FusedPgd { pgd: self, kernels: Arc::clone(kernels) }),
            None => Box::new(self),
        }
    }

    fn start(&self, images: &Tensor, noise: &Noise) -> Tensor {
        let start = match self.start {
            Start::Natural => images.copy(),
            Start::Uniform => self.ball.inner_point(images, noise),
            Start::Gaussian => images + noise.normal(images) * 0.001,
            Start::Signs => images + (-noise.uniform(images) + 0.5).sign() * (self.ball.eps / 2.0),
        };
        if self.clamp_start { start.clamp(0.0, 1.0) } else { start }
    }

    /// The steps from `candidate`.
    pub(super) fn ascend(&self, images: &Tensor, candidate: Tensor, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        self.climb(images, candidate, objective, |_, _| None)
    }

    /// The steps from `candidate`, each of them made of candidate and gradient by `fused` if it can.
    fn climb(
        &self,
        images: &Tensor,
        mut candidate: Tensor,
        objective: &dyn Fn(&Tensor) -> Tensor,
        fused: impl Fn(&Tensor, &Tensor) -> Option<Tensor>,
    ) -> Tensor {
        let surroundings = self.ball.around(images);
        for _ in 0..self.steps {
            let variable = candidate.set_requires_grad(true);
            let gradient = Tensor::run_backward(&[objective(&variable)], &[&variable], false, false).remove(0);
            candidate = no_grad(|| {
                if let Some(moved) = fused(&variable.detach(), &gradient) {
                    return moved;
                }
                let moved = variable.detach() + self.ball.direction(&gradient) * self.step;
                // TRADES, which uses this start, projects in its own order.
                match self.start {
                    Start::Gaussian => surroundings.project_clamped(&moved),
                    Start::Natural | Start::Uniform | Start::Signs => surroundings.project(&moved),
                }
            });
        }
        candidate
    }
}

impl AttackConfig {
    /// The search that this configuration describes.
    pub fn pgd(&self) -> Pgd {
        let Self { norm, steps, start, clamp_start, .. } = *self;
        Pgd { ball: Ball { norm, eps: self.eps.0 }, step: self.step.0, steps, start, clamp_start }
    }
}

#[cfg(test)]
mod tests;
