//! Projected gradient ascent on the margin loss of Carlini and Wagner: "CW-inf" of the IAD reference (basic_eval.py).

use tch::Tensor;

use crate::method::attack::objective::carlini_wagner;
use crate::method::attack::{Ball, Noise, Search, Subject};

/// Takes steps along the sign of the gradient from a uniform start and returns the last image. The CW attack of other
/// libraries is different: it minimises the L2 distance.
#[derive(Debug, Clone, Copy)]
pub struct CwInf {
    /// The ball of the search.
    pub ball: Ball,
    /// Length of a step, in units of the pixel range [0, 1]; the reference takes 2/255.
    pub step: f64,
    /// The number of steps; the reference takes 30.
    pub steps: usize,
}

impl Search for CwInf {
    fn search(&self, subject: &Subject, images: &Tensor, labels: &Tensor, noise: &Noise) -> Tensor {
        let images = &images.detach();
        let surroundings = self.ball.around(images);
        (0..self.steps).fold(surroundings.project(&self.ball.inner_point(images, noise)), |point, _| {
            let gradient = subject.slope(&point, &|logits| carlini_wagner(logits, labels)).gradient;
            surroundings.project(&(point + self.ball.direction(&gradient) * self.step))
        })
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::config::Start;
    use crate::method::attack::tests::{Reference, noise};
    use crate::method::attack::{Attack, Pgd};

    #[test]
    fn it_is_projected_gradient_ascent_on_the_margin() {
        let reference = Reference::read(Kind::Double);
        let (ball, images, labels) = (reference.ball, &reference.images, &reference.labels);
        let noise = noise(&reference.samples);
        let forward = |images: &Tensor| reference.logits(images);
        let search = CwInf { ball, step: 2.0 / 255.0, steps: 5 };
        let found = search.search(&Subject::new(&forward), images, labels, &noise);
        let ascent = Pgd { ball, step: search.step, steps: 5, start: Start::Uniform, clamp_start: true };
        let objective = |candidate: &Tensor| {
            let logits = reference.logits(candidate);
            let label = logits.gather(1, &labels.unsqueeze(1), false).squeeze_dim(1);
            let others = logits.scatter_value(1, &labels.unsqueeze(1), -1e4).amax([1i64].as_slice(), false);
            (others - label).sum(Kind::Double)
        };
        assert!(found.equal(&ascent.perturb(images, &noise, &objective)));
    }
}
