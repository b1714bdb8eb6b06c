//! The presets as a run reads them, with every ablation of the paper, against the loss family in plain PyTorch.

use std::path::Path;

use super::*;
use crate::config::RunConfig;
use crate::fixtures::{digest, pattern};

const BASE: &str = r#"
epochs = 200
batch = { size = 3 }
data = { train = "none", test = "none" }
student = { architecture = "convnet" }
optimizer = { lr = 0.1, lr_policy = "reference" }
teachers = { robust.checkpoint = "none", standard.checkpoint = "none" }
batch_norm = { compat = "lean" }
"#;

/// The terms of `preset` with `overrides` that count in `epoch`.
fn terms(preset: &str, overrides: &[&str], epoch: u64) -> Vec<Term> {
    let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
    let text = format!("{BASE}loss.preset = {preset:?}\n");
    RunConfig::parse(&text, Path::new("test.toml"), &overrides).unwrap().active_terms(epoch).collect()
}

/// Logits by network and images.
type Logits<'a> = [(&'a str, Images, Tensor); 5];

/// The value, and its gradient in the student's natural and adversarial logits.
fn evaluate(terms: &[Term], logits: &Logits, labels: &Tensor, kind: Kind) -> (f64, [Tensor; 2]) {
    let (networks, nothing) = (networks(), Tensor::zeros([3, 1, 8, 8], tch::kind::DOUBLE_CPU));
    let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
    for (network, images, values) in logits {
        let values = values.to_kind(kind).copy();
        views.give(network, *images, values.set_requires_grad(*network == STUDENT));
    }
    let total: Tensor = terms.iter().map(|term| term.evaluate(&views, labels, 3.0)).sum();
    total.backward();
    let gradient = |images| {
        let logits = views.cached(STUDENT, images).unwrap();
        if logits.grad().defined() { logits.grad() } else { logits.zeros_like() }
    };
    (f64::try_from(total).unwrap(), [gradient(Images::Natural), gradient(Images::Adversarial)])
}

/// The inputs of losses.json.
fn inputs() -> (Logits<'static>, Tensor) {
    let logits = |place: u64| (pattern(30, 500 + place).view([3, 10]) - 0.5) * 8.0;
    let logits = [
        (STUDENT, Images::Natural, logits(0)),
        (STUDENT, Images::Adversarial, logits(1)),
        ("robust", Images::Natural, logits(2)),
        ("robust", Images::Adversarial, logits(3)),
        ("standard", Images::Adversarial, logits(4)),
    ];
    (logits, Tensor::from_slice(&[4i64, 0, 9]))
}

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("../../../../../tests/fixtures/losses.json")).unwrap()
}

fn case_terms(case: &Value) -> Vec<Term> {
    let overrides: Vec<&str> = case["set"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    terms(case["preset"].as_str().unwrap(), &overrides, case["epoch"].as_u64().unwrap())
}

#[test]
fn presets_and_ablations_equal_pytorch_in_both_precisions() {
    let (logits, labels) = inputs();
    for case in cases() {
        for (kind, tolerances) in [(Kind::Double, [1e-9, 1e-9]), (Kind::Float, [1e-6, 1e-5])] {
            for (stop_gradient, key) in [(false, "gradients"), (true, "detached")] {
                let terms: Vec<Term> =
                    case_terms(&case).into_iter().map(|term| Term { stop_gradient, ..term }).collect();
                // In single precision a divergence is a sum of cancelling terms of order 1, multiplied by this square.
                let softest = terms.iter().map(|term| term.temperature).fold(1.0, f64::max);
                let (loss, gradients) = evaluate(&terms, &logits, &labels, kind);
                let close = |found: f64, expected: &Value, tolerance: f64| {
                    let expected = expected.as_f64().unwrap();
                    let close = (found - expected).abs() <= tolerance * expected.abs().max(1.0);
                    assert!(close, "{kind:?} {}: {found}, PyTorch {expected}", case);
                };
                close(loss, &case["loss"], tolerances[0] * softest.powi(2));
                for (gradient, expected) in gradients.iter().zip(case[key].as_array().unwrap()) {
                    for (found, expected) in digest(gradient).into_iter().zip(expected.as_array().unwrap()) {
                        close(found, expected, tolerances[1] * softest);
                    }
                }
            }
        }
    }
}

#[test]
fn every_preset_and_every_golden_loss_is_covered() {
    let covered: std::collections::BTreeSet<String> =
        cases().iter().filter_map(|case| case["preset"].as_str().map(str::to_string)).collect();
    let covered: std::collections::BTreeSet<String> =
        covered.into_iter().chain(later::PRESETS.map(str::to_string)).chain(distillation::presets()).collect();
    for preset in crate::config::preset_names() {
        assert!(covered.contains(preset), "{preset}");
    }
    // The golden losses are of the family's members; these presets are the same members.
    let golden = golden();
    let half = ["loss.terms.label.weight=0.1", "loss.terms.teach.weight=0.9"];
    let members: [(&str, &str, &[&str], u64); 17] = [
        ("ST", "st", &[], 0),
        ("AT", "at", &[], 0),
        ("TRADES", "trades", &[], 0),
        ("ARD", "ard", &[], 0),
        ("ARD_lambda0.1", "ard", &half, 0),
        ("AKD2", "akd2", &[], 0),
        ("AKD2_tau2", "akd2", &["loss.terms.teach.temperature=2", "loss.terms.standard.temperature=2"], 0),
        ("AKD2_partial", "akd2-partial", &[], 40),
        ("IAD-I", "iad-1", &[], 60),
        ("IAD-I_warm", "iad-1", &[], 59),
        ("IAD-I_beta1", "iad-1", &["loss.terms.introspect.trust.exponent=1"], 60),
        ("IAD-I_gamma2", "iad-1", &["loss.terms.introspect.trust=", "loss.terms.introspect.weight=2"], 60),
        ("IAD-I_tau20", "iad-1", &["loss.terms.teach.temperature=20"], 60),
        ("IAD-I-Down", "iad-1-down", &[], 60),
        ("IAD-I_lambda0.1", "iad-1", &[half[0], half[1], "loss.terms.introspect.weight=0.9"], 60),
        ("IAD-II", "iad-2", &[], 40),
        ("IAD-II_warm", "iad-2", &[], 39),
    ];
    assert_eq!(golden["presets"].as_object().unwrap().len(), members.len());
    let input = |name: &str| tensor_of(&golden["inputs"][name]);
    let logits = [
        (STUDENT, Images::Natural, input("student_nat")),
        (STUDENT, Images::Adversarial, input("student_adv")),
        ("robust", Images::Natural, input("robust_nat")),
        ("robust", Images::Adversarial, input("robust_adv")),
        ("standard", Images::Adversarial, input("std_adv")),
    ];
    let labels: Vec<i64> = serde_json::from_value(golden["inputs"]["labels"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels);
    for (name, preset, overrides, epoch) in members {
        let expected = &golden["presets"][name];
        let (loss, gradients) = evaluate(&terms(preset, overrides, epoch), &logits, &labels, Kind::Double);
        assert!((loss - expected["loss"].as_f64().unwrap()).abs() < 1e-9, "{name}: {loss}");
        for (gradient, key) in gradients.iter().zip(["grad_student_nat", "grad_student_adv"]) {
            let difference = f64::try_from((gradient - tensor_of(&expected[key])).abs().max()).unwrap();
            assert!(difference < 1e-9, "{name}: {key} differs by {difference}");
        }
    }
}

/// Before the warm-up ends, and with an exponent of 0 at any epoch, introspection is its base method to the bit.
#[test]
fn introspection_without_distrust_is_its_base_to_the_bit() {
    let (logits, labels) = inputs();
    let (own, teach) = ("loss.terms.introspect.trust.exponent=0", "loss.terms.teach.trust.exponent=0");
    for (base, preset, last, overrides) in [
        ("ard", "iad-1", 59, &[own][..]),
        ("ard", "iad-1-down", 59, &[own, teach]),
        ("akd2", "iad-2", 39, &[own, teach]),
        ("akd2", "akd2-partial", 39, &[teach]),
    ] {
        for kind in [Kind::Float, Kind::Double] {
            let expected = evaluate(&terms(base, &[], 0), &logits, &labels, kind);
            let equal = |terms: &[Term]| {
                let found = evaluate(terms, &logits, &labels, kind);
                found.0.to_bits() == expected.0.to_bits() && found.1.iter().zip(&expected.1).all(|(a, b)| a.equal(b))
            };
            for epoch in [0, last] {
                assert!(equal(&terms(preset, &[], epoch)), "{preset} in epoch {epoch}");
            }
            assert!(!equal(&terms(preset, &[], last + 1)), "{preset} after its warm-up");
            for epoch in [0, last, last + 1, 199] {
                assert_eq!(terms(preset, overrides, epoch), terms(base, &[], epoch));
                assert!(equal(&terms(preset, overrides, epoch)), "{preset} without exponent in epoch {epoch}");
            }
        }
    }
}
