//! Projected gradient ascent by its definition, against golden values, and against PyTorch.

use super::*;
use crate::config::Norm;
use crate::fixtures::digest;
use crate::method::attack::golden::{golden, near, network, tensor_of};
use crate::method::attack::objective::cross_entropy;
use crate::method::attack::tests::{Reference, close};
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
    Pgd { ball: Ball { norm: Norm::Linf, eps: 8.0 / 255.0 }, step: 2.0 / 255.0, steps, start, clamp_start }
}

const STARTS: [Start; 4] = [Start::Natural, Start::Uniform, Start::Gaussian, Start::Signs];

proptest! {
    #[test]
    fn results_lie_in_the_ball_and_the_pixel_range(
        eps in 0.001f64..0.5,
        step in 0.001f64..0.5,
        steps in 1usize..6,
        place in 0usize..4,
        clamp_start: bool,
        slope in -20.0f64..20.0,
    ) {
        // Some of the pixels are black or white.
        let images = (images(4) * 1.5 - 0.25).clamp(0.0, 1.0);
        for (norm, eps) in [(Norm::Linf, eps), (Norm::L2, 2.0 * eps)] {
            let ball = Ball { norm, eps };
            let attack = Pgd { ball, step, steps, start: STARTS[place], clamp_start };
            let objective = |candidate: &Tensor| (candidate * slope).sin().sum(Kind::Float);
            let found = attack.perturb(&images, &noise(&[0, 1, 2, 3]), &objective);
            let distance = f64::try_from(ball.distance(&images, &found).max()).unwrap();
            prop_assert!(distance <= eps + ball.tolerance(), "{norm}: {distance} from the image");
            prop_assert!(f64::try_from(found.min()).unwrap() >= 0.0 && f64::try_from(found.max()).unwrap() <= 1.0);
            prop_assert!(!found.requires_grad());
        }
    }
}

#[test]
fn every_start_is_where_its_method_begins() {
    // Black and white images: half of the changes lead out of the pixel range.
    let images = images(64).round();
    let samples: Vec<u64> = (0..64).collect();
    for (start, size) in STARTS.into_iter().zip([0.0, 8.0 / 255.0 / 3f64.sqrt(), 0.001, 4.0 / 255.0]) {
        let begin = |clamp_start| pgd(0, start, clamp_start).perturb(&images, &noise(&samples), &|_| unreachable!());
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

#[test]
fn the_golden_attack_of_trades_in_l2() {
    let case = golden("trades_l2_pgd");
    let (forward, images) = (network(&case), tensor_of(&case["x"]));
    let (eps, steps) = (case["eps"].as_f64().unwrap(), 5);
    assert_eq!(case["steps"], steps);
    let ball = Ball { norm: Norm::L2, eps };
    let attack = Pgd { ball, step: 2.0 * eps / steps as f64, steps, start: Start::Gaussian, clamp_start: false };
    let natural = no_grad(|| forward(&images).softmax(1, None::<Kind>));
    let divergence = |candidate: &Tensor| {
        let adversarial = forward(candidate).log_softmax(1, None::<Kind>);
        (&natural * (natural.log() - adversarial)).sum(Kind::Double)
    };
    let start = &images + tensor_of(&case["start_normal"]) * 0.001;
    let found = attack.ascend(&images, start, &divergence);
    // The golden ball is narrower by 1e-7 of its radius, as torch.renorm makes it.
    near(&found, &tensor_of(&case["x_adv"]), 1e-6, "adversarial images");
}

#[test]
fn steps_in_l2_equal_pytorch() {
    let reference = Reference::read_l2(Kind::Double);
    let expected = &reference.values["pgd"];
    let noise = crate::method::attack::tests::noise(&reference.samples);
    let objective =
        |candidate: &Tensor| cross_entropy(&reference.logits(candidate), &reference.labels).sum(Kind::Double);
    for (place, steps) in [0, 1, 10].into_iter().enumerate() {
        let (ball, step) = (reference.ball, reference.ball.eps / 4.0);
        let attack = Pgd { ball, step, steps, start: Start::Uniform, clamp_start: true };
        let found = attack.perturb(&reference.images, &noise, &objective);
        close(&Tensor::from_slice(&digest(&found)), &expected["digests"][place], &format!("{steps} steps"));
        close(
            &ball.distance(&reference.images, &found),
            &expected["lengths"][place],
            &format!("{steps} steps, lengths"),
        );
        if steps == 10 {
            reference.compare_fooled(&found, &expected["fooled"]);
        }
    }
}

#[test]
fn a_step_in_l2_follows_the_gradient_and_is_as_long_as_stated() {
    let images = Tensor::full([2, 1, 2, 2], 0.5, tch::kind::DOUBLE_CPU);
    let slope = Tensor::from_slice(&[3f64, -4.0, 0.0, 0.0]).view([1, 1, 2, 2]);
    // The second image has no gradient.
    let objective = |candidate: &Tensor| (candidate.get(0) * &slope).sum(Kind::Double);
    let ball = Ball { norm: Norm::L2, eps: 0.2 };
    let attack = |steps| Pgd { ball, step: 0.15, steps, start: Start::Natural, clamp_start: true };
    for (steps, length) in [(1, 0.15), (2, 0.2)] {
        let found = attack(steps).perturb(&images, &noise(&[0, 1]), &objective);
        near(&found.get(0), &(images.get(0) + &slope.get(0) * (length / 5.0)), 1e-12, "along the gradient");
        assert!(found.get(1).equal(&images.get(1)));
    }
}
