//! N-FGSM (de Jorge et al., NeurIPS 2022): one step from strong noise, which is not projected back.

use tch::{Tensor, no_grad};

use crate::config::AttackConfig;
use crate::method::attack::{Attack, Noise};

/// The largest noise, in radii: the value of the paper for CIFAR-10.
const NOISE: f64 = 2.0;

/// Adds uniform noise of up to two radii, clamped to [0, 1], and takes one step along the sign of the gradient. The result
/// is clamped to [0, 1] and to no ball: it may lie two radii and a step from its image.
#[derive(Debug, Clone)]
pub struct NFgsm {
    /// The radius, in units of the pixel range [0, 1].
    pub eps: f64,
    /// Length of the step.
    pub step: f64,
}

impl Attack for NFgsm {
    fn perturb(&self, images: &Tensor, noise: &Noise, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let images = images.detach();
        let start = (&images + (noise.uniform(&images) * 2.0 - 1.0) * (NOISE * self.eps)).clamp(0.0, 1.0);
        self.step_from(start, objective)
    }
}

impl NFgsm {
    fn step_from(&self, start: Tensor, objective: &dyn Fn(&Tensor) -> Tensor) -> Tensor {
        let start = start.set_requires_grad(true);
        let gradient = Tensor::run_backward(&[objective(&start)], &[&start], false, false).remove(0);
        no_grad(|| (start.detach() + gradient.sign() * self.step).clamp(0.0, 1.0))
    }
}

impl AttackConfig {
    /// The attack of this configuration's kind `n_fgsm`.
    pub fn n_fgsm(&self) -> NFgsm {
        NFgsm { eps: self.eps.0, step: self.step.0 }
    }
}

#[cfg(test)]
mod tests {
    use datasets::Draws;
    use datasets::random::Purpose;
    use serde_json::Value;
    use tch::{Device, Kind};

    use super::*;
    use crate::config::{Norm, Start};
    use crate::fixtures::tensor_of;
    use crate::method::attack::{Ball, Pgd};

    /// The networks, images and noise of the golden cases; the noise is in radii where it is scaled to them.
    struct Golden {
        all: Value,
        images: Tensor,
        labels: Tensor,
    }

    impl Golden {
        fn read() -> Self {
            let all: Value =
                serde_json::from_str(include_str!("../../../../tests/fixtures/golden_recipe.json")).unwrap();
            let labels: Vec<i64> = serde_json::from_value(all["grad_align"]["labels"].clone()).unwrap();
            Self { images: tensor_of(&all["grad_align"]["x"]), labels: Tensor::from_slice(&labels), all }
        }

        fn objective(&self, images: &Tensor) -> Tensor {
            let [w1, b1, w2, b2] = ["W1", "b1", "W2", "b2"].map(|name| tensor_of(&self.all["grad_align"][name]));
            let hidden = images.flatten(1, -1).linear(&w1, Some(&b1)).silu();
            hidden.linear(&w2, Some(&b2)).log_softmax(1, Kind::Double).nll_loss(&self.labels)
        }
    }

    /// The gradient's signs of the golden steps, from starts of the golden noise.
    #[test]
    fn steps_from_the_golden_noise_are_those_of_the_authors() {
        let golden = Golden::read();
        let case = &golden.all["single_step"];
        let (eps, noise) = (case["eps"].as_f64().unwrap(), tensor_of(&case["noise"]));
        let of = |name: &str, key: &str| case[name][key].as_f64().unwrap();
        let near = |found: Tensor, expected: &Value, what: &str| {
            let apart = f64::try_from((found - &golden.images - tensor_of(expected)).abs().max()).unwrap();
            assert!(apart < 1e-12, "{what}: {apart:e}");
        };
        let objective = |images: &Tensor| golden.objective(images);
        let wide = NFgsm { eps, step: of("n_fgsm", "alpha") };
        let start = (&golden.images + &noise * NOISE).clamp(0.0, 1.0);
        near(wide.step_from(start, &objective), &case["n_fgsm"]["delta"], "N-FGSM");
        let ball = Ball { norm: Norm::Linf, eps };
        let narrow = Pgd { ball, step: of("fgsm_rs", "alpha"), steps: 1, start: Start::Uniform, clamp_start: true };
        let start = (&golden.images + noise).clamp(0.0, 1.0);
        near(narrow.ascend(&golden.images, start, &objective), &case["fgsm_rs"]["delta"], "FGSM-RS");
    }

    #[test]
    fn the_noise_is_that_of_each_sample_and_reaches_two_radii() {
        let images = Tensor::full([64, 3, 4, 4], 0.5, (Kind::Float, Device::Cpu));
        let attack = NFgsm { eps: 0.1, step: 0.1 };
        let draws = Draws::new(3, Purpose::AttackStart, 1);
        let found = |samples: &[u64]| {
            let noise = Noise::new(&draws, samples, Device::Cpu);
            attack.perturb(&images.narrow(0, 0, samples.len() as i64), &noise, &|candidate| candidate.sum(Kind::Float))
        };
        let all: Vec<u64> = (0..64).collect();
        let whole = found(&all);
        assert!(found(&all[5..9]).equal(&whole.narrow(0, 5, 4)) && !whole.requires_grad());
        let moved = &whole - &images;
        let (least, most) = (f64::try_from(moved.min()).unwrap(), f64::try_from(moved.max()).unwrap());
        assert!((-0.1 - 1e-6..-0.098).contains(&least) && (0.298..=0.3 + 1e-6).contains(&most), "{least}, {most}");
        let clamped = NFgsm { eps: 0.4, step: 0.4 };
        let noise = Noise::new(&draws, &all, Device::Cpu);
        let found = clamped.perturb(&images, &noise, &|candidate| candidate.sum(Kind::Float));
        assert!(f64::try_from(found.max()).unwrap() <= 1.0 && f64::try_from(found.min()).unwrap() >= 0.0);
    }

    #[test]
    fn a_batch_without_images_stays_one() {
        let images = Tensor::zeros([0, 3, 4, 4], (Kind::Float, Device::Cpu));
        let noise = Noise::new(&Draws::new(3, Purpose::AttackStart, 1), &[], Device::Cpu);
        let attack = NFgsm { eps: 0.1, step: 0.1 };
        assert_eq!(attack.perturb(&images, &noise, &|candidate| candidate.sum(Kind::Float)).size(), [0, 3, 4, 4]);
    }
}
