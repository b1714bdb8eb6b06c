//! Projected gradient ascent in a ball (Madry et al. 2018; AttackPGD of the reference scripts).

use tch::{Tensor, no_grad};

use crate::config::{AttackConfig, Start};
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

impl Pgd {
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
    pub(super) fn ascend(
        &self,
        images: &Tensor,
        mut candidate: Tensor,
        objective: &dyn Fn(&Tensor) -> Tensor,
    ) -> Tensor {
        let surroundings = self.ball.around(images);
        for _ in 0..self.steps {
            let variable = candidate.set_requires_grad(true);
            let gradient = Tensor::run_backward(&[objective(&variable)], &[&variable], false, false).remove(0);
            candidate = no_grad(|| {
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
