//! Projected gradient ascent in the L-infinity ball (Madry et al. 2018; AttackPGD of the reference scripts).

use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::{Attack, Noise};

/// Where an attack begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the natural image.
    Natural,
    /// Uniformly in the ball.
    Uniform,
    /// At the natural image plus normal noise of deviation 0.001 (TRADES).
    Gaussian,
}

/// Steps along the sign of the gradient, each followed by a projection onto the ball and onto [0, 1].
#[derive(Debug, Clone)]
pub struct Pgd {
    /// Radius of the ball, in units of the pixel range [0, 1].
    pub eps: f64,
    /// Length of a step, in the same units.
    pub step: f64,
    /// The number of steps.
    pub steps: usize,
    /// Where it begins.
    pub start: Start,
    /// Whether the start is clamped to [0, 1] before the first gradient (the reference's distillation scripts do not).
    pub clamp_start: bool,
}

impl Attack for Pgd {
    fn perturb(&self, images: &Tensor, noise: &Noise, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let images = &images.detach();
        // Both clamps in one: the two intervals always share the image itself.
        let (lowest, highest) = ((images - self.eps).clamp_min(0.0), (images + self.eps).clamp_max(1.0));
        let mut candidate = self.start(images, noise);
        for _ in 0..self.steps {
            let variable = candidate.set_requires_grad(true);
            let gradient = Tensor::run_backward(&[objective(&variable)], &[&variable], false, false).remove(0);
            candidate = no_grad(|| {
                let moved = variable.detach() + gradient.sign() * self.step;
                moved.clamp_tensor(Some(&lowest), Some(&highest))
            });
        }
        candidate
    }
}

impl Pgd {
    fn start(&self, images: &Tensor, noise: &Noise) -> Tensor {
        let start = match self.start {
            Start::Natural => images.copy(),
            Start::Uniform => images + (noise.uniform(images) * 2.0 - 1.0) * self.eps,
            Start::Gaussian => images + noise.normal(images) * 0.001,
        };
        if self.clamp_start { start.clamp(0.0, 1.0) } else { start }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datasets::Draws;
    use datasets::random::Purpose;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    fn noise(samples: &[u64]) -> Noise {
        Noise::new(&Draws::new(1, Purpose::AttackStart, 0), samples, Device::Cpu)
    }

    fn images(count: i64) -> Tensor {
        let values = Tensor::arange(count * 12, (Kind::Float, Device::Cpu));
        ((values * 0.37).sin() * 0.5 + 0.5).view([count, 3, 2, 2])
    }

    fn pgd(steps: usize, start: Start, clamp_start: bool) -> Pgd {
        Pgd { eps: 8.0 / 255.0, step: 2.0 / 255.0, steps, start, clamp_start }
    }

    const STARTS: [Start; 3] = [Start::Natural, Start::Uniform, Start::Gaussian];

    proptest! {
        #[test]
        fn results_lie_in_the_ball_and_the_pixel_range(
            eps in 0.001f64..0.5,
            step in 0.001f64..0.5,
            steps in 1usize..6,
            place in 0usize..3,
            clamp_start: bool,
            slope in -20.0f64..20.0,
        ) {
            // Some of the pixels are black or white.
            let images = (images(4) * 1.5 - 0.25).clamp(0.0, 1.0);
            let attack = Pgd { eps, step, steps, start: STARTS[place], clamp_start };
            let objective = |candidate: &Tensor| (candidate * slope).sin().sum(Kind::Float);
            let found = attack.perturb(&images, &noise(&[0, 1, 2, 3]), &objective);
            let distance = f64::try_from((&found - &images).abs().max()).unwrap();
            prop_assert!(distance <= eps + 1e-6, "{} from the image", distance);
            prop_assert!(f64::try_from(found.min()).unwrap() >= 0.0 && f64::try_from(found.max()).unwrap() <= 1.0);
            prop_assert!(!found.requires_grad());
        }
    }

    #[test]
    fn every_start_is_where_its_method_begins() {
        // Black and white images: half of what is added leads out of the pixel range.
        let images = images(64).round();
        let samples: Vec<u64> = (0..64).collect();
        for (start, size) in STARTS.into_iter().zip([0.0, 8.0 / 255.0 / 3f64.sqrt(), 0.001]) {
            let begin =
                |clamp_start| pgd(0, start, clamp_start).perturb(&images, &noise(&samples), &|_| unreachable!());
            let (free, clamped) = (begin(false), begin(true));
            assert!(clamped.equal(&free.clamp(0.0, 1.0)));
            assert_eq!(clamped.equal(&free), start == Start::Natural);
            let moved = (free - &images).to_kind(Kind::Double);
            let deviation = f64::try_from(moved.square().mean(Kind::Double)).unwrap().sqrt();
            // 768 numbers: a standard error of 2.6 % for normal ones, and less for uniform ones.
            assert!((deviation - size).abs() <= 0.1 * size, "{start:?}: {deviation}");
            assert!(start == Start::Gaussian || f64::try_from(moved.abs().max()).unwrap() <= 8.0 / 255.0 + 1e-6);
        }
    }

    #[test]
    fn no_step_from_the_natural_image_returns_it() {
        let images = images(2);
        let found = pgd(0, Start::Natural, true).perturb(&images, &noise(&[0, 1]), &|_| unreachable!());
        assert!(found.equal(&images));
    }

    #[test]
    fn a_step_follows_the_sign_of_the_gradient_and_zero_stays() {
        let images = Tensor::from_slice(&[0.5f32, 0.5, 0.5, 0.001]).view([1, 1, 2, 2]);
        let slope = Tensor::from_slice(&[4f32, -0.1, 0.0, -1.0]).view([1, 1, 2, 2]);
        let objective = |candidate: &Tensor| (candidate * &slope).sum(Kind::Float);
        let found = pgd(1, Start::Natural, true).perturb(&images, &noise(&[0]), &objective);
        let step = 2.0f32 / 255.0;
        let expected = Tensor::from_slice(&[0.5 + step, 0.5 - step, 0.5, 0.0]).view([1, 1, 2, 2]);
        assert!(f64::try_from((found - expected).abs().max()).unwrap() < 1e-7);
    }

    #[test]
    fn the_start_of_a_sample_does_not_depend_on_its_batch() {
        let images = images(3);
        let attack = pgd(0, Start::Uniform, true);
        let whole = attack.perturb(&images, &noise(&[7, 8, 9]), &|_| unreachable!());
        let alone = attack.perturb(&images.narrow(0, 2, 1), &noise(&[9]), &|_| unreachable!());
        assert!(whole.narrow(0, 2, 1).equal(&alone));
        let again = attack.perturb(&images, &noise(&[7, 8, 10]), &|_| unreachable!());
        assert!(!again.narrow(0, 2, 1).equal(&alone));
    }
}
