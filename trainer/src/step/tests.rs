//! Whole steps against plain PyTorch in float64: tests/fixtures/make.py made the numbers.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use comm::Single;
use datasets::Draws;
use datasets::random::Purpose;
use serde_json::Value;
use tch::{Device, Kind};

use super::*;
use crate::config::{Images, STUDENT};
use crate::fixtures::{self, digest, pattern};
use crate::model::Model;
use crate::step::diagnostics::Seen;
use crate::step::remembering::Survived;

mod free;
mod lower_precision;
mod passes;
mod ranks;
mod replays;
mod single_precision;
mod stopping;
mod waits;
mod watch;
mod weight_perturbation;

const BASE: &str = r#"
epochs = 1
batch = { size = 6 }
data = { train = "none", test = "none" }
student = { architecture = "resnet8" }
teachers = { robust.checkpoint = "none", standard.checkpoint = "none" }
attack = { steps = 3, start = "natural" }
optimizer = { lr = 0.05, lr_policy = "constant" }
precision = { dtype = "float64" }
"#;

/// The configuration of a preset with the switches of IAD-I, IAD-II and CIARD at epoch 0.
fn config(preset: &str, overrides: &[&str]) -> RunConfig {
    let begun: &[&str] = match preset {
        "iad-1" => &["loss.terms.introspect.from_epoch=0"],
        "iad-2" => &["loss.terms.introspect.from_epoch=0", "loss.terms.teach.trust.from_epoch=0"],
        "ciard" => &["learners.tutor.from_epoch=0", "loss.terms.tutor-label.from_epoch=0"],
        _ => &[],
    };
    let overrides: Vec<_> = begun.iter().chain(overrides).map(|text| text.parse().unwrap()).collect();
    RunConfig::parse(&format!("{BASE}loss.preset = {preset:?}\n"), Path::new("test.toml"), &overrides).unwrap()
}

fn network(seed: u64, kind: Kind) -> Model {
    fixtures::network(seed, 5, kind)
}

fn close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{what}: {found}, PyTorch {expected}");
}

fn expected(case: &str) -> Value {
    let fixtures: Value = serde_json::from_str(include_str!("../../../tests/fixtures/step.json")).unwrap();
    fixtures[case].clone()
}

fn networks(kind: Kind) -> Networks {
    let teachers =
        BTreeMap::from([("robust".to_string(), network(2, kind)), ("standard".to_string(), network(3, kind))]);
    Networks::new(network(1, kind), teachers, Precision::default())
}

/// A student, teachers as the precision of `config` wants them, and its learners; what learns is made by `learning` from a
/// seed.
fn networks_of(config: &RunConfig, learning: impl Fn(u64) -> Model) -> Networks {
    let kind = config.precision.dtype.kind();
    let teachers =
        BTreeMap::from([("robust".to_string(), network(2, kind)), ("standard".to_string(), network(3, kind))]);
    let learners = config.learners.keys().map(|name| (name.clone(), learning(4))).collect();
    Networks::new(learning(1), teachers, config.precision).with_learners(learners)
}

/// A step as `config` describes it.
fn step(config: &RunConfig) -> Step {
    let networks = networks_of(config, |seed| network(seed, config.precision.dtype.kind()));
    Step::new(config, networks, Arc::new(Single)).unwrap()
}

/// The loss of a step, by all its terms.
fn loss(seen: &Seen) -> f64 {
    seen.sums.losses.values().map(|sum| sum / seen.sums.samples).sum()
}

/// The adversarial images of a step.
fn adversarial(step: &Step, batch: &Batch, noise: &Noise) -> Tensor {
    let Work { networks, adversary, .. } = &step.work;
    let fixed = Views::new(networks, adversary.mode, &batch.images, &batch.images);
    let survived = Survived::new(networks, &batch.labels);
    adversary.adversarial(networks, batch, noise, &adversary.raised(&[]), (&fixed, &survived), &go_on).unwrap()
}

fn compare(case: &str, config: &RunConfig) {
    let expected = expected(case);
    let mut step = Step::new(config, networks(Kind::Double), Arc::new(Single)).unwrap();
    let terms: Vec<Term> = config.active_terms(0).collect();
    for number in 0..2 {
        let labels: Vec<i64> = (0..6).map(|sample| (sample * 3 + number as i64) % 5).collect();
        let batch = Batch {
            images: pattern(6 * 3 * 16 * 16, 7 + number).view([6, 3, 16, 16]),
            labels: Tensor::from_slice(&labels),
            samples: (0..6).collect(),
            global_count: 6,
        };
        let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &batch.samples, Device::Cpu);
        let before =
            (step.work.networks.student.flat_statistics.copy(), step.work.networks.student.batches_tracked.copy());
        let adversarial = adversarial(&step, &batch, &noise);
        close(digest(&adversarial)[0], &expected[&format!("adversarial_{number}")], "adversarial images");
        // The step repeats the attack, so first undo its effect on the running statistics.
        step.work.networks.student.flat_statistics.copy_(&before.0);
        step.work.networks.student.batches_tracked.copy_(&before.1);

        let seen = step.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap();
        assert_eq!(seen.not_finite, None);
        let loss: f64 = seen.sums.losses.values().map(|sum| sum / 6.0).sum();
        close(loss, &expected["losses"][number as usize], "loss");
    }
    for named in step.work.networks.student.tensors() {
        let of = expected["tensors"][&named.name].as_array().unwrap();
        digest(&named.tensor).into_iter().zip(of).for_each(|(found, expected)| close(found, expected, &named.name));
    }
    let tracked = i64::try_from(&step.work.networks.student.batches_tracked).unwrap();
    assert_eq!(Some(tracked), expected["batches_tracked"].as_i64());
}

#[test]
fn two_steps_equal_pytorch() {
    let lean = "batch_norm.compat=lean";
    for (case, preset) in [("at", "at"), ("ard", "ard"), ("akd2", "akd2"), ("iad_1", "iad-1"), ("iad_2", "iad-2")] {
        compare(case, &config(preset, &[lean]));
    }
    compare("trades", &config("trades", &[lean, "attack.start=uniform"]));
    compare("rslad", &config("rslad", &[]));
    compare("adaad", &config("adaad", &[lean]));
}

/// With the reference scripts' forward passes that only update running statistics.
#[test]
fn two_steps_with_the_passes_of_the_reference_equal_pytorch() {
    compare("ard_reference", &config("ard", &[]));
    compare("iad_1_reference", &config("iad-1", &[]));
    compare("adaad_reference", &config("adaad", &[]));
    compare("trades_reference", &config("trades", &["attack.start=uniform"]));
}

#[test]
fn a_step_whose_gradient_is_not_finite_moves_nothing() {
    // With a teacher, cases and histograms are counted even from NaN.
    let config = config("iad-1", &[]);
    let mut step = Step::new(&config, networks(Kind::Double), Arc::new(Single)).unwrap();
    let samples: Vec<u64> = (0..2).collect();
    let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &samples, Device::Cpu);
    let images = Tensor::full([2, 3, 16, 16], f64::NAN, tch::kind::DOUBLE_CPU);
    let batch = Batch { images, labels: Tensor::from_slice(&[1i64, 2]), samples, global_count: 2 };
    let before =
        [&step.work.parameters.values, &step.work.optimizer.velocity, &step.work.networks.student.flat_statistics]
            .map(Tensor::copy);
    let terms: Vec<Term> = config.active_terms(0).collect();
    let seen = step.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap();
    assert_eq!(seen.not_finite, Some(0));
    assert_eq!(step.work.parameters.name_at(0), "conv1.weight");
    let after =
        [&step.work.parameters.values, &step.work.optimizer.velocity, &step.work.networks.student.flat_statistics];
    assert!(before.iter().zip(after).all(|(before, after)| before.equal(after)));
}
