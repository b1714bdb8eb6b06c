//! Projected gradient ascent on the margin loss of Carlini and Wagner: "CW-inf" of the IAD reference (basic_eval.py).

use tch::Tensor;

use super::Noise;
use super::objective::carlini_wagner;
use super::search::{Ball, Search, Subject};

/// Steps along the gradient's direction from a uniform start; the last image is the result. (The CW attack of other
/// libraries, an optimisation of the L2 distance, is another one.)
#[derive(Debug, Clone, Copy)]
pub struct CwInf {
    /// Where it searches.
    pub ball: Ball,
    /// Length of a step, in units of the pixel range [0, 1]; the reference takes 2/255.
    pub step: f64,
    /// The number of steps; the reference takes 30.
    pub steps: usize,
}

impl Search for CwInf {
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor {
        let images = &images.detach();
        let start = images + (noise.uniform(images) * 2.0 - 1.0) * self.ball.eps;
        (0..self.steps).fold(self.ball.project(images, &start), |point, _| {
            let gradient = subject.slope(&point, &|logits| carlini_wagner(logits, labels)).gradient;
            self.ball.project(images, &(point + self.ball.direction(&gradient) * self.step))
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::attack::tests::{Reference, noise};
    use crate::attack::{Attack, Pgd, Start};

    #[test]
    fn it_is_projected_gradient_ascent_on_the_margin() {
        let reference = Reference::read(Kind::Double);
        let (ball, images, labels) = (reference.ball, &reference.images, &reference.labels);
        let noise = noise(&reference.samples);
        let forward = |images: &Tensor| reference.logits(images);
        let search = CwInf { ball, step: 2.0 / 255.0, steps: 5 };
        let found = search.search(&Subject::new(&forward), images, labels, &noise);
        let ascent = Pgd { eps: ball.eps, step: search.step, steps: 5, start: Start::Uniform, clamp_start: true };
        let objective = |candidate: &Tensor| {
            let logits = reference.logits(candidate);
            let label = logits.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1);
            let others = logits.scatter_value(1, &labels.unsqueeze(1), -1e4).amax([1i64].as_slice(), false);
            (others - label).sum(Kind::Double)
        };
        assert!(found.equal(&ascent.perturb(images, &noise, &objective)));
    }
}
