//! Whole steps against plain PyTorch in float64: tests/fixtures/make_step.py made the numbers.

use std::collections::BTreeMap;
use std::path::Path;

use comm::Single;
use datasets::Draws;
use datasets::random::Purpose;
use serde_json::Value;
use tch::Device;

use super::*;
use crate::model::{Form, Model};

const AT: &str = r#"
epochs = 1
batch = { size = 6 }
data = { train = "none", test = "none" }
student = { architecture = "resnet8" }
attack = { steps = 3, start = "natural", batch_norm = "eval" }
loss = { preset = "at" }
optimizer = { lr = 0.05, lr_policy = "constant" }
"#;

/// `count` numbers in [0, 1), exact multiples of 2^-32, as in make_step.py.
fn pattern(count: usize, key: u64) -> Tensor {
    let number =
        |index: u64| ((index * 2_654_435_761 + key * 40_503 + 12_345) % (1 << 32)) as f64 / (1u64 << 32) as f64;
    Tensor::from_slice(&(0..count as u64).map(number).collect::<Vec<f64>>())
}

fn network(seed: u64) -> Model {
    let form = Form { architecture: "resnet8".parse().unwrap(), image: [3, 16, 16], classes: 5 };
    let model = Model::build(form, 1, Kind::Double, Device::Cpu, None);
    let mut named: Vec<_> = model.tensors().collect();
    named.sort_by(|one, other| one.name.cmp(&other.name));
    for (place, named) in named.into_iter().enumerate() {
        let tensor = &named.tensor;
        let values = pattern(tensor.numel(), seed * 1000 + place as u64).view_as(tensor);
        let values = if named.name.ends_with("running_var") {
            values + 0.5
        } else if tensor.dim() == 1 && named.name.ends_with("weight") {
            values / 2.0 + 0.75
        } else {
            let fan_in = (tensor.numel() / tensor.size()[0] as usize).max(16) as f64;
            (values - 0.5) * (2.0 / fan_in.sqrt())
        };
        no_grad(|| tensor.shallow_clone().copy_(&values));
    }
    model
}

fn weighted_sum(tensor: &Tensor) -> f64 {
    let weights = pattern(tensor.numel(), 99) + 1.0;
    f64::try_from((tensor.flatten(0, -1) * weights).sum(Kind::Double)).unwrap()
}

fn close(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1.0), "{what}: {found}, PyTorch {expected}");
}

fn compare(method: &str, text: &str) {
    let fixtures: Value = serde_json::from_str(include_str!("../../../tests/fixtures/step.json")).unwrap();
    let expected = &fixtures[method];
    let config = RunConfig::parse(text, Path::new("test.toml"), &[]).unwrap();
    let teachers = BTreeMap::from([("robust".to_string(), network(2)), ("standard".to_string(), network(3))]);
    teachers.values().for_each(Model::freeze);
    let networks = Networks { student: network(1), teachers };
    let mut step = Step::new(&config, networks, Arc::new(Single)).unwrap();
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
        let before = (step.networks.student.flat_statistics.copy(), step.networks.student.batches_tracked.copy());
        let adversarial = step.adversarial(&batch, &noise);
        close(weighted_sum(&adversarial), &expected[&format!("adversarial_{number}")], "adversarial images");
        // The step makes them again: take back what that attack did to the running statistics.
        step.networks.student.flat_statistics.copy_(&before.0);
        step.networks.student.batches_tracked.copy_(&before.1);

        let seen = step.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap();
        assert_eq!(seen.not_finite, None);
        let loss: f64 = seen.sums.iter().filter(|(name, _)| name.starts_with("loss/")).map(|(_, sum)| sum / 6.0).sum();
        close(loss, &expected["losses"][number as usize], "loss");
    }
    for named in step.networks.student.tensors() {
        let of = &expected["tensors"][&named.name];
        close(weighted_sum(&named.tensor), &of[0], &named.name);
        close(f64::try_from(named.tensor.norm()).unwrap(), &of[1], &named.name);
    }
    let tracked = i64::try_from(&step.networks.student.batches_tracked).unwrap();
    assert_eq!(Some(tracked), expected["batches_tracked"].as_i64());
}

/// The configuration of a preset with its switches at epoch 0, in float64.
fn distillation(preset: &str, overrides: &[&str]) -> String {
    let text = AT.replace("eval", "train_update").replace("preset = \"at\"", &format!("preset = {preset:?}"))
        + "teachers = { robust.checkpoint = \"none\", standard.checkpoint = \"none\" }\n";
    let overrides = overrides.iter().chain(&["precision.dtype=float64"]).map(|text| text.parse().unwrap());
    RunConfig::parse(&text, Path::new("test.toml"), &overrides.collect::<Vec<_>>()).unwrap().resolved()
}

#[test]
fn two_steps_of_adversarial_training_equal_pytorch() {
    compare("at", &AT.replace("epochs = 1", "epochs = 1\nprecision = { dtype = \"float64\" }"));
}

#[test]
fn two_steps_of_trades_from_a_random_start_equal_pytorch() {
    let text = AT
        .replace("epochs = 1", "epochs = 1\nprecision = { dtype = \"float64\" }")
        .replace("preset = \"at\"", "preset = \"trades\"")
        .replace("\"natural\"", "\"uniform\", towards = { network = \"student\", images = \"natural\" }");
    compare("trades", &text);
}

#[test]
fn two_steps_of_ard_equal_pytorch() {
    compare("ard", &distillation("ard", &[]));
}

#[test]
fn two_steps_of_akd2_equal_pytorch() {
    compare("akd2", &distillation("akd2", &[]));
}

#[test]
fn two_steps_of_iad_1_equal_pytorch() {
    compare("iad_1", &distillation("iad-1", &["loss.terms.introspect.from_epoch=0"]));
}

#[test]
fn two_steps_of_iad_2_equal_pytorch() {
    compare(
        "iad_2",
        &distillation("iad-2", &["loss.terms.introspect.from_epoch=0", "loss.terms.teach.trust.from_epoch=0"]),
    );
}

#[test]
fn a_step_whose_gradient_is_not_finite_moves_nothing() {
    let config = RunConfig::parse(AT, Path::new("test.toml"), &[]).unwrap();
    let networks = Networks { student: network(1), teachers: BTreeMap::new() };
    let mut step = Step::new(&config, networks, Arc::new(Single)).unwrap();
    let samples: Vec<u64> = (0..2).collect();
    let noise = Noise::new(&Draws::new(1, Purpose::AttackStart, 0), &samples, Device::Cpu);
    let images = Tensor::full([2, 3, 16, 16], f64::NAN, tch::kind::DOUBLE_CPU);
    let batch = Batch { images, labels: Tensor::from_slice(&[1i64, 2]), samples, global_count: 2 };
    let before =
        [&step.parameters.values, &step.optimizer.velocity, &step.networks.student.flat_statistics].map(Tensor::copy);
    let terms: Vec<Term> = config.active_terms(0).collect();
    let seen = step.run(&batch, &noise, &terms, 0.05).unwrap().read().unwrap();
    assert_eq!(seen.not_finite, Some(0));
    assert_eq!(step.parameters.name_at(0), "conv1.weight");
    let after = [&step.parameters.values, &step.optimizer.velocity, &step.networks.student.flat_statistics];
    assert!(before.iter().zip(after).all(|(before, after)| before.equal(after)));
}

#[test]
fn before_its_first_epoch_introspection_changes_nothing() {
    let text = AT.replace("preset = \"at\"", "preset = \"iad-1\"") + "teachers.robust.checkpoint = \"none\"\n";
    let config = RunConfig::parse(&text, Path::new("test.toml"), &[]).unwrap();
    let ard = RunConfig::parse(&text.replace("iad-1", "ard"), Path::new("test.toml"), &[]).unwrap();
    assert_eq!(config.active_terms(59).collect::<Vec<_>>(), ard.active_terms(59).collect::<Vec<_>>());
    assert_eq!(config.active_terms(60).count(), 2);
    // With an exponent of 0 the teacher is always trusted: the term is gone at any epoch.
    let always =
        RunConfig::parse(&text, Path::new("test.toml"), &["loss.terms.introspect.trust.exponent=0".parse().unwrap()]);
    assert_eq!(always.unwrap().active_terms(60).collect::<Vec<_>>(), ard.active_terms(60).collect::<Vec<_>>());
}

#[test]
fn before_its_warm_up_ends_iad_2_is_akd2() {
    let config = |preset| RunConfig::parse(&distillation(preset, &[]), Path::new("test.toml"), &[]).unwrap();
    let sorted = |config: RunConfig| {
        let mut terms: Vec<Term> = config.active_terms(39).collect();
        terms.sort_by(|one, other| one.name.cmp(&other.name));
        terms
    };
    assert_eq!(sorted(config("iad-2")), sorted(config("akd2")));
    assert_eq!(config("iad-2").active_terms(40).filter(|term| term.trust.is_some()).count(), 2);
}
