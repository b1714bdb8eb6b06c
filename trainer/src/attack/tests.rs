//! What holds for every search of an evaluation.

use datasets::Draws;
use datasets::random::Purpose;
use proptest::prelude::*;
use serde_json::Value;
use tch::{Device, Kind, no_grad};

use super::*;
use crate::fixtures::{network, pattern};
use crate::model::{Form, Mode, Model};

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

/// A network, eight images, and what tests/fixtures/make_attacks.py says about them in float64.
pub(super) struct Reference {
    model: Model,
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
        let values: Value = serde_json::from_str(include_str!("../../../tests/fixtures/attacks.json")).unwrap();
        let labels: Vec<i64> = serde_json::from_value(values["labels"].clone()).unwrap();
        Self {
            model,
            ball: Ball { norm: Norm::Linf, eps: values["eps"].as_f64().unwrap() },
            images: pattern(8 * 768, 21).view([8, 3, 16, 16]).to_kind(kind),
            labels: Tensor::from_slice(&labels),
            samples: [0, 1, 2, 3, 4, 5, 6, 7],
            values,
        }
    }

    /// The network's logits less their means, times a scale: the network alone hardly tells the images apart.
    pub fn logits(&self, images: &Tensor) -> Tensor {
        let (mean, scale) = (numbers(&self.values["mean_logits"]), self.values["scale"].as_f64().unwrap());
        (self.model.logits(images, Mode::Eval) - mean.to_kind(images.kind())) * scale
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
        Box::new(ApgdT { ball, iterations, target: 2 }),
        Box::new(FabT { ball, iterations, target: 2 }),
        Box::new(Square { ball, queries: 10 * iterations }),
    ]
}

/// A small network with its first weights, for images `[1, 8, 8]`.
fn small(seed: u64) -> Model {
    alone_on_a_core();
    let form = Form { architecture: "convnet".parse().unwrap(), image: [1, 8, 8], classes: 5 };
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
        let ball = Ball { norm: Norm::Linf, eps };
        for (number, search) in searches(ball, 25).into_iter().enumerate() {
            let found = search.search(&Subject::new(&forward), &images, &labels, &noise(&[0, 1, 2, 3]));
            let distance = f64::try_from(ball.distance(&images, &found).max()).unwrap();
            prop_assert!(distance <= eps + 1e-6, "search {number}: {distance} from the image, eps {eps}");
            let (lowest, highest) = (f64::try_from(found.min()).unwrap(), f64::try_from(found.max()).unwrap());
            prop_assert!(lowest >= 0.0 && highest <= 1.0, "search {number}: pixels from {lowest} to {highest}");
            prop_assert!(!found.requires_grad());
        }
    }
}

#[test]
fn the_result_of_an_image_does_not_depend_on_its_batch() {
    for kind in [Kind::Float, Kind::Double] {
        let reference = Reference::read(kind);
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
                    assert!(alone.get(row).equal(&among.get(image)), "{kind:?}, search {number}, image {image}");
                }
            }
        }
    }
}

#[test]
fn an_undefended_network_falls() {
    let reference = Reference::read(Kind::Double);
    let forward = |images: &Tensor| reference.logits(images);
    for (number, search) in searches(BALL, 50).into_iter().enumerate() {
        let subject = Subject::new(&forward);
        let found = search.search(&subject, &reference.images, &reference.labels, &noise(&reference.samples));
        let right = predictions(&subject.logits(&found)).eq_tensor(&reference.labels).sum(Kind::Int64);
        assert_eq!(i64::try_from(&right).unwrap(), 0, "search {number}");
    }
}

#[test]
fn an_image_before_a_plane_falls_where_the_ball_crosses_it() {
    // From (0.5, 0.4) the plane 2 a - b = 0.9 is (0.9 - 0.6) / 3 = 0.1 away.
    let (forward, labels) = (plane([2.0, -1.0, 0.0], 0.9), Tensor::from_slice(&[0i64]));
    for (eps, falls) in [(0.101, true), (0.099, false)] {
        let ball = Ball { norm: Norm::Linf, eps };
        for (number, search) in searches(ball, 100).into_iter().enumerate() {
            let subject = Subject::new(&forward);
            let found = search.search(&subject, &three_pixels([0.5, 0.4, 0.3]), &labels, &noise(&[5]));
            let fallen = i64::try_from(predictions(&subject.logits(&found))).unwrap() == 1;
            assert_eq!(fallen, falls, "search {number}, eps {eps}");
        }
    }
}
