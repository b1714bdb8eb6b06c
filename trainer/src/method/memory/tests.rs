//! The parts of a memory against the golden numbers of the authors' code, and their way over epochs.

use serde_json::Value;
use tch::Kind;

use super::survival::class_weights;
use super::*;
use crate::config::{ClassMeans, ClassWeights, Rectify};
use crate::fixtures::tensor_of;

fn cases(name: &str) -> (Value, Vec<Value>) {
    let golden: Value =
        serde_json::from_str(include_str!("../../../../tests/fixtures/golden_distillation.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let found: Vec<Value> =
        cases.iter().filter(|case| case["name"].as_str().unwrap().starts_with(name)).cloned().collect();
    assert!(!found.is_empty(), "{name}");
    (golden["logits"].clone(), found)
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

#[track_caller]
fn close(found: &Tensor, expected: &[f64]) {
    let found = Vec::<f64>::try_from(found.flatten(0, -1)).unwrap();
    let equal = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(equal, "{found:?} instead of {expected:?}");
}

const FAIR: ClassWeights = ClassWeights { exponent: 2.0, least: 5.0 / 6.0, most: 2.5 };

#[test]
fn class_weights_are_the_golden_ones() {
    for case in cases("fair_class_weights").1 {
        let kappa = numbers(&case["parameters"]["kappa_mean_per_class"]);
        close(&class_weights(&Tensor::from_slice(&kappa), FAIR), &numbers(&case["weights"]));
    }
}

/// The counts of the batches of an epoch weigh the classes of the next, in a class whose samples are more too.
#[test]
fn survived_steps_of_an_epoch_weigh_the_next() {
    let survival = Survival::new(FAIR, 3, Device::Cpu);
    let labels = Tensor::from_slice(&[0i64, 1, 1, 2]);
    close(&survival.factor(&labels, Kind::Double), &[1.0; 4]);
    let memory = Memory { survival: Some(survival), ..Memory::default() };
    for (survived, moves) in [([4i64, 1, 2, 0], true), ([9, 9, 9, 9], false), ([2, 2, 1, 3], true)] {
        let sums = memory.sums(&labels, None, Some(&Tensor::from_slice(&survived))).unwrap();
        memory.keep(&sums, &flag(moves));
    }
    let survival = memory.survival.as_ref().unwrap();
    close(&survival.factor(&labels, Kind::Double), &[1.0; 4]);
    memory.after_epoch();
    // 6, 6 and 3 steps over 8 samples of 3 classes.
    let share = |steps: f64| (steps / (8.0 / 3.0) + 1e-5f64).powi(-2);
    let all = 2.0 * share(6.0) + share(3.0);
    let weight = |steps: f64| (share(steps) * 3.0 / all).clamp(5.0 / 6.0, 2.5);
    close(&survival.factor(&labels, Kind::Double), &[weight(6.0), weight(6.0), weight(6.0), weight(3.0)]);
    // An epoch without samples has equal weights.
    memory.after_epoch();
    close(&survival.factor(&labels, Kind::Double), &[1.0; 4]);
}

/// Whether a step moves anything.
fn flag(value: bool) -> Tensor {
    Tensor::full([], i64::from(value), (Kind::Bool, Device::Cpu))
}

#[test]
fn mean_predictions_of_an_epoch_count_in_the_next() {
    let config = ClassMeans { temperature: 2.0, exponent: 1.0, normalized: false };
    let memory = Memory { means: Some(Means::new(config, 3, Device::Cpu)), ..Memory::default() };
    let labels = Tensor::from_slice(&[0i64, 2, 0]);
    let logits = Tensor::from_slice(&[0.3f64, -1.0, 2.0, 0.1, 0.2, 0.9, -0.4, 1.1, 0.0]).view([3, 3]);
    let sums = memory.sums(&labels, Some(&logits), None).unwrap();
    assert_eq!(sums.size()[0], memory.count());
    memory.keep(&sums, &flag(true));
    memory.keep(&(&sums * 7.0), &flag(false));
    let means = memory.means.as_ref().unwrap();
    close(&means.of(&labels, Kind::Double), &[1.0 / 3.0; 9]);
    memory.after_epoch();
    let predictions = (&logits / 2.0).softmax(1, Kind::Double);
    let first = (predictions.get(0) + predictions.get(2)) / 2.0;
    let expected = Tensor::stack(&[&first, &predictions.get(1), &first], 0);
    close(&means.of(&labels, Kind::Double), &Vec::<f64>::try_from(expected.flatten(0, -1)).unwrap());
    // A class that has no sample keeps its mean.
    close(&means.of(&Tensor::from_slice(&[1i64]), Kind::Double), &[1.0 / 3.0; 3]);
}

#[test]
fn mixed_labels_and_their_schedule_are_the_golden_ones() {
    let (logits, cases) = cases("adr_pgd");
    for case in cases {
        let parameters = &case["parameters"];
        let count = |name: &str| parameters[name].as_u64().unwrap();
        let config = Rectify { network: "ema".into(), temperature: [2.5, 2.0], weight: [0.7, 0.95] };
        let [temperature, weight] = config.at(count("step"), count("epochs") * count("steps_per_epoch"));
        assert!((temperature - parameters["temperature"].as_f64().unwrap()).abs() < 1e-12);
        assert!((weight - parameters["interpolation"].as_f64().unwrap()).abs() < 1e-12);
        let rectified = Rectified::new(config, Device::Cpu);
        rectified.begin_step(count("step"), count("epochs") * count("steps_per_epoch"));
        let labels = Tensor::from_slice(&[2i64, 3, 0, 2]);
        let found = rectified.labels(&tensor_of(&logits["t_nat"]), &labels);
        close(&found, &Vec::<f64>::try_from(tensor_of(&case["label"]).flatten(0, -1)).unwrap());
    }
}

/// Source: DKLv1. Two batches of an epoch, and the sums over both.
#[test]
fn mean_predictions_are_the_golden_ones() {
    let golden: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/golden_recipe.json")).unwrap();
    let case = &golden["dkl_class_mean"];
    let (logits, labels) = (tensor_of(&case["logits_nat"]), tensor_of(&case["labels"]).to_kind(Kind::Int64));
    let config = ClassMeans { temperature: case["T"].as_f64().unwrap(), exponent: 1.0, normalized: false };
    let memory = Memory { means: Some(Means::new(config, 3, Device::Cpu)), ..Memory::default() };
    for (from, count) in [(0, 4), (4, 2)] {
        let part = |tensor: &Tensor| tensor.narrow(0, from, count);
        memory.keep(&memory.sums(&part(&labels), Some(&part(&logits)), None).unwrap(), &flag(true));
    }
    memory.after_epoch();
    let means = memory.means.as_ref().unwrap().of(&Tensor::from_slice(&[0i64, 1, 2]), Kind::Double);
    close(&means, &Vec::<f64>::try_from(tensor_of(&case["class_mean"]).flatten(0, -1)).unwrap());
}
