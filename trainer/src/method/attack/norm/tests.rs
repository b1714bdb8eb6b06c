//! The two norms by their definitions.

use proptest::prelude::*;
use tch::Device;

use super::*;
use crate::fixtures::pattern;
use crate::method::attack::tests::noise;

const NORMS: [Norm; 2] = [Norm::Linf, Norm::L2];

/// Eight images `[2, 6, 6]`, some of their pixels black or white.
fn images(key: u64, kind: Kind) -> Tensor {
    ((pattern(8 * 72, key) - 0.5) * 1.5 + 0.5).clamp(0.0, 1.0).view([8, 2, 6, 6]).to_kind(kind)
}

fn samples() -> Noise {
    noise(&[0, 1, 2, 3, 4, 5, 6, 7])
}

fn largest(values: &Tensor) -> f64 {
    f64::try_from(values.max()).unwrap()
}

fn outside_pixels(images: &Tensor) -> f64 {
    largest(&(images - images.clamp(0.0, 1.0)).abs())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn projections_lie_in_the_ball_and_the_pixel_range(seed in 0u64..1000, eps in 0.001f64..3.0, far in 0.01f64..10.0) {
        for norm in NORMS {
            for kind in [Kind::Float, Kind::Double] {
                let (ball, images) = (Ball { norm, eps }, images(seed, kind));
                let candidate = &images + (pattern(8 * 72, seed + 1).view_as(&images) - 0.5) * far;
                let candidate = candidate.to_kind(kind);
                let surroundings = ball.around(&images);
                for found in [surroundings.project(&candidate), surroundings.project_clamped(&candidate)] {
                    prop_assert_eq!(found.kind(), kind);
                    let distance = largest(&ball.distance(&images, &found));
                    let tolerance = if kind == Kind::Double { 1e-12 } else { ball.tolerance() };
                    prop_assert!(distance <= eps + tolerance, "{norm}, {kind:?}: {distance}, eps {eps}");
                    prop_assert_eq!(outside_pixels(&found), 0.0);
                    // Points inside do not move.
                    let again = surroundings.project(&found);
                    prop_assert!(largest(&(again - &found).abs()) <= 1e-6);
                }
            }
        }
    }

    #[test]
    fn the_steepest_direction_has_length_1_and_no_other_of_that_length_rises_more(seed in 0u64..1000) {
        let gradient = (pattern(8 * 72, seed) - 0.5).view([8, 2, 6, 6]);
        let other = (pattern(8 * 72, seed + 1) - 0.5).view([8, 2, 6, 6]);
        for norm in NORMS {
            let ball = Ball { norm, eps: 1.0 };
            let length = |vectors: &Tensor| ball.distance(&vectors.zeros_like(), vectors);
            let rise = |direction: &Tensor| (direction * &gradient).sum_dim_intlist([1i64, 2, 3].as_slice(), false, None);
            let steepest = ball.direction(&gradient);
            prop_assert!(largest(&(length(&steepest) - 1.0).abs()) < 1e-9);
            let other = &other / length(&other).view([8, 1, 1, 1]);
            prop_assert!(bool::try_from(rise(&steepest).ge_tensor(&rise(&other)).all()).unwrap());
        }
    }
}

#[test]
fn a_gradient_of_zero_moves_nothing() {
    let zero = Tensor::zeros([2, 1, 2, 2], (Kind::Float, Device::Cpu));
    for norm in NORMS {
        assert!(Ball { norm, eps: 0.5 }.direction(&zero).equal(&zero));
    }
}

#[test]
fn lengths_have_the_unit_of_pixels() {
    // One grey image of 3 x 32 x 32 pixels, each of them a 255th brighter.
    let images = Tensor::full([1, 3, 32, 32], 0.5, (Kind::Double, Device::Cpu));
    let brighter = &images + 1.0 / 255.0;
    let distance = |norm| f64::try_from(Ball { norm, eps: 0.5 }.distance(&images, &brighter)).unwrap();
    assert!((distance(Norm::Linf) - 1.0 / 255.0).abs() < 1e-15);
    assert!((distance(Norm::L2) - 3072f64.sqrt() / 255.0).abs() < 1e-12);
}

#[test]
fn the_last_step_of_a_projection_in_l2_is_the_pixel_range() {
    // From (0.9, 0.5) by (0.4, 0.3), of length 0.5: in a ball of 0.25 to (1.1, 0.65), and then to (1, 0.65). With the pixel
    // range first, the move is (0.1, 0.3).
    let image = Tensor::from_slice(&[0.9f64, 0.5]).view([1, 1, 1, 2]);
    let candidate = Tensor::from_slice(&[1.3f64, 0.8]).view([1, 1, 1, 2]);
    let surroundings = Ball { norm: Norm::L2, eps: 0.25 }.around(&image);
    let pixels = |tensor: Tensor| Vec::<f64>::try_from(tensor.flatten(0, -1)).unwrap();
    let found = pixels(surroundings.project(&candidate));
    assert!((found[0] - 1.0).abs() < 1e-12 && (found[1] - 0.65).abs() < 1e-12, "{found:?}");
    let found = pixels(surroundings.project_clamped(&candidate));
    let scale = 0.25 / 0.1f64.hypot(0.3);
    assert!((found[0] - 0.9 - 0.1 * scale).abs() < 1e-12 && (found[1] - 0.5 - 0.3 * scale).abs() < 1e-12, "{found:?}");
}

#[test]
fn random_points_are_where_they_should_be() {
    let grey = Tensor::full([8, 2, 6, 6], 0.5, (Kind::Double, Device::Cpu));
    for norm in NORMS {
        let ball = Ball { norm, eps: 0.25 };
        let surface = ball.surface_point(&grey, &samples());
        assert!(largest(&(ball.distance(&grey, &surface) - 0.25).abs()) < 1e-9, "{norm}");
        assert!(largest(&ball.distance(&grey, &ball.inner_point(&grey, &samples()))) <= 0.25);
        let black = grey.zeros_like();
        assert_eq!(outside_pixels(&ball.surface_point(&black, &samples())), 0.0);
        assert!(outside_pixels(&ball.inner_point(&black, &samples())) > 0.0, "{norm}: not cut");
    }
    // In L2 the radius is uniform: of 512 points as many in each eighth, to five standard errors.
    let grey = Tensor::full([512, 2, 6, 6], 0.5, (Kind::Double, Device::Cpu));
    let ball = Ball { norm: Norm::L2, eps: 0.25 };
    let inner = ball.inner_point(&grey, &noise(&(0..512).collect::<Vec<u64>>()));
    let radii = Vec::<f64>::try_from(ball.distance(&grey, &inner)).unwrap();
    for eighth in 0..8 {
        let count = radii.iter().filter(|radius| (**radius * 32.0) as usize == eighth).count();
        assert!((27..=101).contains(&count), "{count} of 512 radii in eighth {eighth}");
    }
}
