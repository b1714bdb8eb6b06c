//! The golden value and gradients, and whole steps on any number of ranks.

use std::sync::Arc;

use comm::Single;
use datasets::Draws;
use datasets::random::Purpose;
use serde_json::Value;
use tch::Device;

use super::*;
use crate::fixtures::{network, pattern, tensor_of};
use crate::step::Step;

#[test]
fn value_and_gradients_are_those_of_the_authors() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/golden_recipe.json")).unwrap();
    let golden = &golden["grad_align"];
    let labels: Vec<i64> = serde_json::from_value(golden["labels"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels);
    let names = ["W1", "b1", "W2", "b2"];
    let parameters = names.map(|name| tensor_of(&golden[name]).set_requires_grad(true));
    let [w1, b1, w2, b2] = &parameters;
    let gradient = |images: &Tensor, differentiable: bool| {
        let variable = images.detach().set_requires_grad(true);
        let logits = variable.flatten(1, -1).linear(w1, Some(b1)).silu().linear(w2, Some(b2));
        let loss = -log_probability_of(&logits, &labels).sum(Kind::Double);
        Tensor::run_backward(&[loss], &[&variable], differentiable, differentiable).remove(0)
    };
    let images = tensor_of(&golden["x"]);
    let misaligned = misalignment(&gradient(&images, false), &gradient(&(&images + tensor_of(&golden["noise"])), true));
    let expected = &golden["grad1_detached"];
    let apart = |one: &Tensor, other: &Tensor| f64::try_from((one - other).abs().max()).unwrap();
    assert!(apart(&(1.0 - &misaligned), &tensor_of(&expected["cos"])) < 1e-12);
    let total = misaligned.mean(Kind::Double) * golden["lam"].as_f64().unwrap();
    assert!((f64::try_from(&total).unwrap() - expected["reg"].as_f64().unwrap()).abs() < 1e-12);
    total.backward();
    for (name, parameter) in names.iter().zip(&parameters) {
        let apart = apart(&parameter.grad(), &tensor_of(&expected["grad"][*name]));
        assert!(apart < 1e-12, "the gradient of {name} is {apart:e} off");
    }
}

#[test]
fn gradients_without_a_direction_count_as_aligned() {
    let rows = Tensor::from_slice2(&[[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]);
    let near = Tensor::from_slice2(&[[1.0, 2.0], [0.0, 0.0], [0.0, 3.0]]).set_requires_grad(true);
    let found = misalignment(&rows, &near);
    assert_eq!(Vec::<f64>::try_from(&found).unwrap(), [0.0, 0.0, 1.0]);
    found.sum(Kind::Double).backward();
    let gradient: Vec<f64> = near.grad().flatten(0, -1).try_into().unwrap();
    assert_eq!(gradient[..4], [0.0; 4]);
    assert!(gradient.iter().all(|value| value.is_finite()) && gradient[4] != 0.0);
}

fn config(changes: &[&str]) -> RunConfig {
    let text = r#"
epochs = 1
batch = { size = 6 }
data = { train = "none", test = "none" }
student = { architecture = "resnet8" }
attack = { kind = "pgd", steps = 1, step = "8/255", start = "natural", batch_norm = "train_frozen" }
loss = { preset = "at" }
optimizer = { lr = 0.05, lr_policy = "constant" }
precision = { dtype = "float64" }
"#;
    let changes: Vec<_> = changes.iter().map(|text| text.parse().unwrap()).collect();
    RunConfig::parse(text, std::path::Path::new("test.toml"), &changes).unwrap()
}

fn batch() -> (Batch, Noise) {
    let samples: Vec<u64> = (0..6).collect();
    let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &samples, Device::Cpu);
    let images = pattern(6 * 3 * 16 * 16, 7).view([6, 3, 16, 16]);
    (Batch { images, labels: Tensor::from_slice(&[1i64, 2, 3, 4, 0, 2]), samples, global_count: 6 }, noise)
}

/// The step's gradient is that of the loss, and of the regulariser by finite differences of its value.
#[test]
fn a_step_goes_down_the_loss_and_the_regulariser() {
    let networks = || Networks::new(network(1, 5, Kind::Double), Default::default(), Default::default());
    let (batch, noise) = batch();
    let gradients = |config: &RunConfig| {
        let mut step = Step::new(config, networks(), Arc::new(Single)).unwrap();
        let terms: Vec<Term> = config.active_terms(0).collect();
        let seen = step.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap();
        (step.work.parameters.gradients.copy(), seen, step)
    };
    let (plain, _, step) = gradients(&config(&[]));
    let (both, seen, aligned) = gradients(&config(&["grad_align={ weight = 0.7 }"]));
    let statistics = |step: &Step| step.work.networks.student.flat_statistics.copy();
    assert!(statistics(&step).equal(&statistics(&aligned)));
    let alignment = GradientAlignment::new(&config(&["grad_align={ weight = 0.7 }"])).unwrap();
    let fresh = Step::new(&config(&[]), networks(), Arc::new(Single)).unwrap();
    // The gradient at the image itself is a constant.
    let fresh = &fresh.work;
    let fixed = gradient(&fresh.networks, &batch.images, &batch.labels, false);
    let near = &batch.images + alignment.shift(&batch.images, &noise);
    let value = || {
        let near = gradient(&fresh.networks, &near, &batch.labels, false);
        f64::try_from(misalignment(&fixed, &near).sum(Kind::Double)).unwrap() * 0.7 / 6.0
    };
    let told = seen.sums.losses["grad_align"] / 6.0;
    assert!((told - value()).abs() < 1e-12 && (1e-4..1.4).contains(&told), "{told}");
    let direction = both - plain;
    let length = f64::try_from(direction.norm()).unwrap();
    let values = &fresh.parameters.values;
    let small = 1e-6;
    let moved = |factor: f64| {
        let by = &direction * (factor / length);
        let _ = tch::no_grad(|| values.shallow_clone().g_add_(&by));
        let found = value();
        let _ = tch::no_grad(|| values.shallow_clone().g_sub_(&by));
        found
    };
    let slope = (moved(small) - moved(-small)) / (2.0 * small);
    assert!((slope - length).abs() < 1e-4 * length, "slope {slope}, gradient {length}");
}

#[test]
fn points_near_an_image_are_those_of_its_sample() {
    let alignment = GradientAlignment::new(&config(&["grad_align={ weight = 0.2 }"])).unwrap();
    let (batch, noise) = batch();
    let whole = alignment.shift(&batch.images, &noise);
    let largest = f64::try_from(whole.abs().max()).unwrap();
    assert!((0.99 * 8.0 / 255.0..=8.0 / 255.0).contains(&largest), "{largest}");
    let part = alignment.shift(&batch.images.narrow(0, 2, 3), &noise.rows(&(2..5)));
    assert!(part.equal(&whole.narrow(0, 2, 3)));
    let start = (noise.uniform(&batch.images) * 2.0 - 1.0) * (8.0 / 255.0);
    assert!(f64::try_from((whole * start).sum(Kind::Double)).unwrap().abs() < 0.05, "another draw than the start's");
}
