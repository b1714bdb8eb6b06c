//! Methods after IAD against the golden numbers of their authors' code, in float64.

use super::*;
use crate::config::{Ramp, RunConfig};

const BASE: &str = r#"
epochs = 200
batch = { size = 4 }
data = { train = "none", test = "none" }
student = { architecture = "convnet" }
optimizer = { lr = 0.1, lr_policy = "reference" }
teachers = { robust.checkpoint = "none", standard.checkpoint = "none" }
"#;

/// The presets that the tests of this file cover.
pub(super) const PRESETS: [&str; 6] = ["mart", "nuat", "trades-ls", "igdm", "igdm-ard", "igdm-rslad"];

/// The terms of `preset` in `epoch`, with `overrides`.
pub(super) fn terms(preset: &str, overrides: &[&str], epoch: u64) -> Vec<Term> {
    config(preset, overrides).active_terms(epoch).collect()
}

/// A run of `preset`, with `overrides`.
pub(super) fn config(preset: &str, overrides: &[&str]) -> RunConfig {
    let overrides: Vec<_> = overrides.iter().map(|text| text.parse().unwrap()).collect();
    let text = format!("{BASE}loss.preset = {preset:?}\n");
    RunConfig::parse(&text, std::path::Path::new("test.toml"), &overrides).unwrap()
}

/// Asserts the loss and its gradients with respect to the logits. Logits without a golden gradient must get none.
fn assert_golden(
    name: &str,
    terms: &[Term],
    logits: &[(&str, Images, &Value, Option<&Value>)],
    labels: &Value,
    expected: (f64, f64),
) {
    assert_golden_of(&networks(), name, terms, logits, labels, expected);
}

/// The same where the method of these networks remembers something.
pub(super) fn assert_golden_of(
    networks: &Networks,
    name: &str,
    terms: &[Term],
    logits: &[(&str, Images, &Value, Option<&Value>)],
    labels: &Value,
    (loss, tolerance): (f64, f64),
) {
    let nothing = Tensor::zeros([4, 1, 8, 8], tch::kind::DOUBLE_CPU);
    let views = Views::new(networks, Mode::Train, &nothing, &nothing);
    for (network, images, values, _) in logits {
        views.give(network, *images, tensor_of(values).set_requires_grad(*network == STUDENT));
    }
    let labels: Vec<i64> = serde_json::from_value(labels.clone()).unwrap();
    let total: Tensor =
        terms.iter().map(|term| term.evaluate(&views, &Tensor::from_slice(&labels), labels.len() as f64)).sum();
    total.backward();
    let found = f64::try_from(total).unwrap();
    assert!((found - loss).abs() <= tolerance * loss.abs(), "{name}: loss {found}, golden {loss}");
    for (network, images, values, golden) in logits.iter().filter(|(network, ..)| *network == STUDENT) {
        let gradient = views.cached(network, *images).unwrap().grad();
        let gradient = if gradient.defined() { gradient } else { tensor_of(values).zeros_like() };
        let golden = golden.map_or_else(|| gradient.zeros_like(), tensor_of);
        let apart = f64::try_from((gradient - golden).abs().max()).unwrap();
        assert!(apart < 1e-9, "{name}: the gradient of {images:?} logits is {apart:e} off");
    }
}

fn recipe() -> Value {
    serde_json::from_str(include_str!("../../../../../tests/fixtures/golden_recipe.json")).unwrap()
}

#[test]
fn mart_and_smoothed_trades_have_the_golden_values_and_gradients() {
    for (case, preset, weight) in [("mart", "mart", "beta"), ("trades_ls", "trades-ls", "beta")] {
        let golden = &recipe()[case];
        let beta = format!("loss.terms.smooth.weight={:?}", golden[weight].as_f64().unwrap());
        let logits = [
            (STUDENT, Images::Natural, &golden["logits_nat"], Some(&golden["grad_nat"])),
            (STUDENT, Images::Adversarial, &golden["logits_adv"], Some(&golden["grad_adv"])),
        ];
        let loss = golden["loss"].as_f64().unwrap();
        assert_golden(case, &terms(preset, &[&beta], 0), &logits, &golden["labels"], (loss, 1e-9));
    }
}

/// The golden divisor is the number of samples; the last epoch has the whole weight.
#[test]
fn nuat_has_the_golden_value_and_gradients() {
    let golden = &recipe()["nuat"];
    assert_eq!(golden["divisor"], 5);
    let logits = [
        (STUDENT, Images::Natural, &golden["logits_nat"], Some(&golden["grad_nat"])),
        (STUDENT, Images::Adversarial, &golden["logits_adv"], Some(&golden["grad_adv"])),
    ];
    let weight = format!("loss.terms.smooth.weight={:?}", golden["lam"].as_f64().unwrap());
    let loss = golden["loss"].as_f64().unwrap();
    assert_golden("nuat", &terms("nuat", &[&weight], 199), &logits, &golden["labels"], (loss, 1e-10));
}

/// A weight of 0 for MART's second term leaves natural logits without a gradient; smoothing 0 is plain cross-entropy.
#[test]
fn limits_of_mart_and_of_smoothing() {
    let golden = &recipe()["mart"];
    let boosted = terms("mart", &["loss.terms.smooth.weight=0"], 0);
    assert_eq!(boosted.len(), 1);
    let plan = crate::method::pass_plan::PassPlan::new(&boosted, &Default::default());
    let passes =
        plan.passes(&crate::config::AttackConfig { kind: crate::config::AttackKind::None, ..Default::default() });
    assert_eq!(passes[STUDENT].forward, 1);
    let labels: Vec<i64> = serde_json::from_value(golden["labels"].clone()).unwrap();
    let (logits, labels) = (tensor_of(&golden["logits_adv"]), Tensor::from_slice(&labels));
    assert!(cross_entropy(&logits, &labels, 0.0).equal(&-log_probability_of(&logits, &labels)));
}

#[test]
fn igdm_has_the_golden_values_and_gradients() {
    let golden: Value =
        serde_json::from_str(include_str!("../../../../../tests/fixtures/golden_distillation.json")).unwrap();
    let mut compared = 0;
    for case in golden["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (preset, overrides, epoch, tolerance): (_, Vec<String>, _, _) = match name {
            "igdm_adaad_epoch50_alpha20" => ("igdm", vec!["loss.terms.match.weight=20".into()], 49, 1e-9),
            "igdm_adaad_epoch200_alpha1" => ("igdm", vec!["loss.terms.match.weight=1".into()], 199, 1e-9),
            "igdm_rslad_supplement" => {
                // The released code takes ten times the class mean, here of four classes. It adds 1e-5 in the logarithm
                // of the target, which changes the value and no gradient.
                let parameters = &case["parameters"];
                let ramped = parameters["alpha"].as_f64().unwrap() * parameters["epoch"].as_f64().unwrap() / 200.0;
                let weights = [("teach", 10.0 / 4.0 * 5.0 / 6.0), ("natural", 10.0 / 4.0 / 6.0), ("match", ramped)];
                let set = weights.map(|(term, weight)| format!("loss.terms.{term}.weight={weight:?}"));
                ("igdm-rslad", set.into(), 199, 2e-4)
            }
            _ => continue,
        };
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let (all, gradient) = (&golden["logits"], |view: &str| case.get(format!("d_student_{view}")));
        let logits = [
            (STUDENT, Images::Natural, &all["s_nat"], gradient("nat")),
            (STUDENT, Images::Adversarial, &all["s_adv"], gradient("adv")),
            (STUDENT, Images::Mirrored, &all["s_minus"], gradient("minus")),
            ("robust", Images::Natural, &all["t_nat"], None),
            ("robust", Images::Adversarial, &all["t_adv"], None),
            ("robust", Images::Mirrored, &all["t_minus"], None),
        ];
        let loss = case["loss"].as_f64().unwrap();
        assert_golden(name, &terms(preset, &overrides, epoch), &logits, &golden["y"], (loss, tolerance));
        compared += 1;
    }
    assert_eq!(compared, 3);
}

/// Its parts are those of presets with golden numbers.
#[test]
fn igdm_on_ard_is_ard_and_the_module() {
    let alpha = "loss.terms.match.weight=10";
    let module = terms("igdm", &[alpha], 99).pop().unwrap();
    assert_eq!(terms("igdm-ard", &[], 99), [terms("ard", &[], 99).swap_remove(0), module]);
}

#[test]
fn a_ramp_ends_at_the_whole_weight() {
    let config = |epoch| terms("igdm", &["loss.terms.match.weight=4"], epoch).pop().unwrap();
    assert_eq!([0, 99, 199].map(|epoch| config(epoch).weight), [0.02, 2.0, 4.0]);
    assert_eq!(config(0).ramp, None);
    assert_eq!(serde_json::to_string(&Ramp::Linear).unwrap(), "\"linear\"");
}

/// NuAT's weight: 4.5 / (E - 10) more after each of the first E - 10 epochs, from 0 on.
#[test]
fn a_ramp_that_holds_begins_at_0_and_ends_early() {
    let weight = |epoch| terms("nuat", &[], epoch).pop().unwrap().weight;
    assert_eq!([0, 95, 190, 199].map(weight), [0.0, 2.25, 4.5, 4.5]);
    let short = |epoch| Ramp::Hold(10).share(epoch, 3);
    assert_eq!([0, 1, 2].map(short), [0.0, 1.0, 1.0]);
    assert_eq!(serde_json::to_string(&Ramp::Hold(10)).unwrap(), r#"{"hold":10}"#);
}

/// The attack raises the term in every second step of an epoch, from the second on.
#[test]
fn steps_alternate_where_the_attack_raises_a_term() {
    let config = config("nuat", &[]);
    let raised = |place| config.terms_of_step(7, place).iter().filter(|term| term.in_attack).count();
    assert_eq!([0, 1, 2, 3].map(raised), [0, 1, 0, 1]);
    let names = |place: u64| config.terms_of_step(7, place).into_iter().map(|term| term.name).collect::<Vec<_>>();
    assert_eq!(names(0), names(1));
    assert!(config.loss.alternates() && config.loss.exchanges());
}

/// Mirrored images lie as far on the other side of the natural ones, beyond the range of pixels too.
#[test]
fn mirrored_images_are_not_clamped() {
    let networks = networks();
    let natural = Tensor::full([1, 1, 8, 8], 0.01, tch::kind::DOUBLE_CPU);
    let adversarial = &natural + 0.03;
    let views = Views::new(&networks, Mode::Eval, &natural, &adversarial);
    let mirrored = &natural - 0.03;
    let expected = Views::new(&networks, Mode::Eval, &natural, &mirrored).logits(STUDENT, Images::Adversarial);
    let apart = (views.logits(STUDENT, Images::Mirrored) - expected).abs().max();
    assert!(f64::try_from(apart).unwrap() < 1e-12);
}
