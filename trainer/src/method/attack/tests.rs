//! Properties of every search of an evaluation.

use datasets::Draws;
use datasets::random::Purpose;
use proptest::prelude::*;
use serde_json::Value;
use tch::{Device, Kind, no_grad};

use super::*;
use crate::config::Norm;
use crate::fixtures::{network, pattern};
use crate::model::{Mode, Model, ModelSpec};

mod outcomes;

pub(super) const BALL: Ball = Ball { norm: Norm::Linf, eps: 8.0 / 255.0 };

pub(super) fn noise(samples: &[u64]) -> Noise {
    Noise::new(&Draws::new(1, Purpose::Evaluation(7), 0), samples, Device::Cpu)
}

/// Tests run at the same time, each in a thread of its own: their small tensors gain nothing from more.
fn alone_on_a_core() {
    tch::set_num_threads(1);
}

/// A classifier into four classes, of which the first two count: class 1 where the `slope` times the pixels is above `offset`.
pub(super) fn plane(slope: [f64; 3], offset: f64) -> impl Fn(&Tensor) -> Tensor {
    move |images| {
        let height = (images.flatten(1, -1) * Tensor::from_slice(&slope)).sum_dim_intlist(1i64, false, None::<Kind>);
        let constant = |value: f64| height.full_like(value);
        Tensor::stack(&[constant(0.0), &height - offset, constant(-20.0), constant(-30.0)], 1)
    }
}

/// One image `[1, 1, 1, 3]`.
pub(super) fn three_pixels(pixels: [f64; 3]) -> Tensor {
    Tensor::from_slice(&pixels).view([1, 1, 1, 3])
}

/// A network, eight images, and the results of tests/fixtures/make_attacks.py in float64.
pub(super) struct Reference {
    model: Model,
    /// The logits' means and their scale.
    outputs: (Tensor, f64),
    pub values: Value,
    pub ball: Ball,
    pub images: Tensor,
    pub labels: Tensor,
    pub samples: [u64; 8],
}

impl Reference {
    pub fn read(kind: Kind) -> Self {
        alone_on_a_core();
        let model = network(11, 10, kind);
        model.freeze();
        let values: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/attacks.json")).unwrap();
        let outputs = (numbers(&values["mean_logits"]), values["scale"].as_f64().unwrap());
        let labels: Vec<i64> = serde_json::from_value(values["labels"].clone()).unwrap();
        Self {
            model,
            ball: Ball { norm: Norm::Linf, eps: values["eps"].as_f64().unwrap() },
            images: pattern(8 * 768, 21).view([8, 3, 16, 16]).to_kind(kind),
            labels: Tensor::from_slice(&labels),
            samples: [0, 1, 2, 3, 4, 5, 6, 7],
            outputs,
            values,
        }
    }

    /// The same network and images, and PyTorch's results in L2.
    pub fn read_l2(kind: Kind) -> Self {
        let values: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/attacks_l2.json")).unwrap();
        let ball = Ball { norm: Norm::L2, eps: values["eps"].as_f64().unwrap() };
        Self { ball, values, ..Self::read(kind) }
    }

    /// The network's logits less their means, times a scale: the network alone hardly tells the images apart.
    pub fn logits(&self, images: &Tensor) -> Tensor {
        let (mean, scale) = &self.outputs;
        (self.model.logits(images, Mode::Eval) - mean.to_kind(images.kind())) * *scale
    }

    /// Compares the images that a search has found.
    #[track_caller]
    pub fn compare_fooled(&self, found: &Tensor, expected: &Value) {
        let expected: Vec<bool> = serde_json::from_value(expected.clone()).unwrap();
        let wrong = no_grad(|| predictions(&self.logits(found)).ne_tensor(&self.labels));
        assert_eq!(Vec::<bool>::try_from(wrong).unwrap(), expected);
    }
}

/// A vector of float64; null is infinite.
pub(super) fn numbers(value: &Value) -> Tensor {
    let numbers: Vec<Option<f64>> = serde_json::from_value(value.clone()).unwrap();
    Tensor::from_slice(&numbers.into_iter().map(|number| number.unwrap_or(f64::INFINITY)).collect::<Vec<_>>())
}

#[track_caller]
pub(super) fn close(found: &Tensor, expected: &Value, what: &str) {
    let expected = numbers(expected);
    assert!(found.allclose(&expected, 1e-9, 1e-12, false), "{what}: {found}, PyTorch {expected}");
}

fn searches(ball: Ball, iterations: usize) -> Vec<Box<dyn Search>> {
    vec![
        Box::new(CwInf { ball, step: ball.eps / 4.0, steps: iterations }),
        Box::new(ApgdCe { ball, iterations }),
        Box::new(ApgdT { ball, iterations, targets: &[2] }),
        Box::new(FabT { ball, iterations, targets: &[2] }),
        Box::new(Square { ball, queries: 10 * iterations }),
    ]
}

/// A small network with its first weights, for images `[1, 8, 8]`.
fn small(seed: u64) -> Model {
    alone_on_a_core();
    let form = ModelSpec::new("convnet".parse().unwrap(), [1, 8, 8], 5);
    let model = Model::build(form, seed, Kind::Float, Device::Cpu, None);
    model.freeze();
    model
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_lie_in_the_ball_and_the_pixel_range(seed in 0u64..1000, eps in 0.001f64..0.4) {
        let model = small(seed);
        let forward = |images: &Tensor| model.logits(images, Mode::Eval);
        // A third of the pixels is black or white.
        let images = ((pattern(4 * 64, seed) - 0.5) * 1.5 + 0.5).clamp(0.0, 1.0).view([4, 1, 8, 8]).to_kind(Kind::Float);
        let labels = predictions(&no_grad(|| forward(&images)));
        for (norm, eps) in [(Norm::Linf, eps), (Norm::L2, 5.0 * eps)] {
            let ball = Ball { norm, eps };
            for (number, search) in searches(ball, 25).into_iter().enumerate() {
                let found = search.search(&Subject::new(&forward), &images, &labels, &noise(&[0, 1, 2, 3]));
                let distance = f64::try_from(ball.distance(&images, &found).max()).unwrap();
                prop_assert!(distance <= eps + ball.tolerance(), "{norm} {number}: {distance} from the image, eps {eps}");
                let (lowest, highest) = (f64::try_from(found.min()).unwrap(), f64::try_from(found.max()).unwrap());
                prop_assert!(lowest >= 0.0 && highest <= 1.0, "{norm} {number}: pixels from {lowest} to {highest}");
                prop_assert!(!found.requires_grad());
            }
        }
    }
}

#[test]
fn the_result_of_an_image_does_not_depend_on_its_batch() {
    for kind in [Kind::Float, Kind::Double] {
        unaffected_by_neighbours(&Reference::read(kind));
        unaffected_by_neighbours(&Reference::read_l2(kind));
    }
}

fn unaffected_by_neighbours(reference: &Reference) {
    let forward = |images: &Tensor| reference.logits(images);
    let subject = Subject::new(&forward);
    let (images, labels) = (reference.images.narrow(0, 0, 4), reference.labels.narrow(0, 0, 4));
    let copies = |tensor: &Tensor, image: i64| Tensor::stack(&[0; 4].map(|_| tensor.get(image)), 0);
    // Some of these images fall early, others late or never.
    for (number, search) in searches(reference.ball, 30).into_iter().enumerate() {
        let among = search.search(&subject, &images, &labels, &noise(&[40, 41, 42, 43]));
        for image in 0..4 {
            let noise = noise(&[40 + image as u64; 4]);
            let alone = search.search(&subject, &copies(&images, image), &copies(&labels, image), &noise);
            for row in 0..4 {
                assert!(
                    alone.get(row).equal(&among.get(image)),
                    "{:?}, search {number}, image {image}",
                    reference.ball
                );
            }
        }
    }
}

#[test]
fn an_undefended_network_falls() {
    let reference = Reference::read(Kind::Double);
    let forward = |images: &Tensor| reference.logits(images);
    for ball in [BALL, Ball { norm: Norm::L2, eps: 0.5 }] {
        for (number, search) in searches(ball, 50).into_iter().enumerate() {
            let subject = Subject::new(&forward);
            let found = search.search(&subject, &reference.images, &reference.labels, &noise(&reference.samples));
            let right = predictions(&subject.logits(&found)).eq_tensor(&reference.labels).sum(Kind::Int64);
            assert_eq!(i64::try_from(&right).unwrap(), 0, "{ball:?}, search {number}");
        }
    }
}

#[test]
fn an_image_before_a_plane_falls_where_the_ball_crosses_it() {
    // From (0.5, 0.4) the plane 2 a - b = 0.9 is (0.9 - 0.6) / 3 = 0.1 away in L-infinity and 0.3 / sqrt(5) = 0.1342 in L2.
    let (forward, labels) = (plane([2.0, -1.0, 0.0], 0.9), Tensor::from_slice(&[0i64]));
    for (norm, eps, falls) in
        [(Norm::Linf, 0.101, true), (Norm::Linf, 0.099, false), (Norm::L2, 0.1355, true), (Norm::L2, 0.133, false)]
    {
        // Square in L2 moves windows of three by three pixels: three pixels in a row are too few for it to fall into place.
        let count = if norm == Norm::L2 { 4 } else { 5 };
        for (number, search) in searches(Ball { norm, eps }, 100).into_iter().take(count).enumerate() {
            let subject = Subject::new(&forward);
            let found = search.search(&subject, &three_pixels([0.5, 0.4, 0.3]), &labels, &noise(&[5]));
            let fallen = i64::try_from(predictions(&subject.logits(&found))).unwrap() == 1;
            assert_eq!(fallen, falls, "search {number}, {norm}, eps {eps}");
        }
    }
}
