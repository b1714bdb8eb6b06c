//! Every preset of the paper as terms, against values and gradients from a reference computation in float64.

use std::collections::BTreeMap;

use serde_json::Value;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::config::Precision;
use crate::config::Prediction;
use crate::fixtures::tensor_of;
use crate::method::networks::Networks;
use crate::model::{Mode, Model, ModelSpec};

mod distillation;
mod later;
mod mixed;
mod presets;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../../tests/fixtures/golden_losses.json")).unwrap()
}

/// The terms of the loss family: a label term for each kind of images, three teachers' terms, the student's own.
fn terms(parameters: &Value) -> Vec<Term> {
    let number = |name: &str| parameters[name].as_f64().unwrap();
    let (temperature, own_temperature) = (number("tau"), number("tau_self"));
    let warm = parameters["warm"].as_bool().unwrap();
    let trust = |inverted| Some(Trust { teacher: "robust".into(), exponent: number("beta"), inverted, from_epoch: 0 });
    let trusted = |mode: &str| if parameters[mode] == "alpha" && !warm { trust(false) } else { None };
    let guide = |network: &str, images| Target::Prediction(Prediction { network: network.into(), images });
    let term = |name: &str, of, towards| Term { weight: number(name), ..Term::plain(name, of, towards) };
    let teach = |name: &str, towards, trust| Term { temperature, trust, ..term(name, Images::Adversarial, towards) };
    let (gamma, own_trust) = match parameters["gamma"].as_f64() {
        Some(gamma) => (gamma, None),
        None => (1.0, trust(true)),
    };
    let own = Term {
        weight: if warm { 0.0 } else { number("c") * gamma },
        temperature: own_temperature,
        trust: own_trust,
        ..term("c", Images::Adversarial, guide(STUDENT, Images::Natural))
    };
    let all = vec![
        term("a_adv", Images::Adversarial, Target::Label),
        term("a_nat", Images::Natural, Target::Label),
        teach("b_nat", guide("robust", Images::Natural), trusted("u")),
        teach("b_adv", guide("robust", Images::Adversarial), trusted("v")),
        teach("b_std", guide("standard", Images::Adversarial), None),
        own,
    ];
    all.into_iter().filter(|term| term.weight != 0.0).collect()
}

fn networks() -> Networks {
    let form = ModelSpec::new("convnet".parse().unwrap(), [1, 8, 8], 4);
    let student = Model::build(form, 1, Kind::Double, Device::Cpu, None);
    Networks::new(student, BTreeMap::new(), Precision::default())
}

#[test]
fn every_preset_has_the_golden_value_and_gradients() {
    let golden = golden();
    let (networks, nothing) = (networks(), Tensor::zeros([3, 1, 8, 8], tch::kind::DOUBLE_CPU));
    let labels: Vec<i64> = serde_json::from_value(golden["inputs"]["labels"].clone()).unwrap();
    let labels = Tensor::from_slice(&labels);
    for (name, preset) in golden["presets"].as_object().unwrap() {
        for stop_gradient in [false, true] {
            let natural = tensor_of(&golden["inputs"]["student_nat"]).set_requires_grad(true);
            let adversarial = tensor_of(&golden["inputs"]["student_adv"]).set_requires_grad(true);
            let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
            for (network, images, logits) in [
                (STUDENT, Images::Natural, natural.shallow_clone()),
                (STUDENT, Images::Adversarial, adversarial.shallow_clone()),
                ("robust", Images::Natural, tensor_of(&golden["inputs"]["robust_nat"])),
                ("robust", Images::Adversarial, tensor_of(&golden["inputs"]["robust_adv"])),
                ("standard", Images::Adversarial, tensor_of(&golden["inputs"]["std_adv"])),
            ] {
                views.give(network, images, logits);
            }
            let terms = terms(&preset["params"]).into_iter().map(|term| Term { stop_gradient, ..term });
            let total: Tensor = terms.map(|term| term.evaluate(&views, &labels, 3.0)).sum();
            total.backward();

            let loss = f64::try_from(total).unwrap();
            let expected = preset["loss"].as_f64().unwrap();
            assert!((loss - expected).abs() <= 1e-9 * expected.abs(), "{name}: loss {loss}, golden {expected}");
            let natural_name = if stop_gradient { "grad_detached_student_nat" } else { "grad_student_nat" };
            for (tensor, key) in [(&adversarial, "grad_student_adv"), (&natural, natural_name)] {
                let gradient = tensor.grad();
                let gradient = if gradient.defined() { gradient } else { tensor.zeros_like() };
                let difference = f64::try_from((gradient - tensor_of(&preset[key])).abs().max()).unwrap();
                assert!(difference < 1e-9, "{name}: {key} differs by {difference}");
            }
        }
    }
}

#[test]
fn alpha_is_the_golden_one_and_never_underflows() {
    let golden = golden();
    let (networks, nothing) = (networks(), Tensor::zeros([1, 1, 8, 8], tch::kind::DOUBLE_CPU));
    let trust = |exponent| Trust { teacher: "robust".into(), exponent, inverted: false, from_epoch: 0 };
    let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
    views.give("robust", Images::Adversarial, tensor_of(&golden["inputs"]["robust_adv"]));
    let labels: Vec<i64> = serde_json::from_value(golden["inputs"]["labels"].clone()).unwrap();
    let alpha = Vec::<f64>::try_from(trust(0.1).alpha(&views, &Tensor::from_slice(&labels))).unwrap();
    let expected: Vec<f64> = serde_json::from_value(golden["presets"]["IAD-I"]["alpha"].clone()).unwrap();
    assert!(alpha.iter().zip(&expected).all(|(found, golden)| (found - golden).abs() < 1e-9), "{alpha:?} {expected:?}");

    let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
    views.give("robust", Images::Adversarial, Tensor::from_slice2(&[[2000.0f32, 0.0, 0.0, 0.0]]));
    let alpha = |exponent| f64::try_from(trust(exponent).alpha(&views, &Tensor::from_slice(&[1i64]))).unwrap();
    assert!((alpha(0.001) - (-2.0f64).exp()).abs() < 1e-6);
    assert_eq!((alpha(0.0), alpha(1.0)), (1.0, 0.0));
}

#[test]
fn extreme_logits_give_finite_losses() {
    let (networks, nothing) = (networks(), Tensor::zeros([1, 1, 8, 8], tch::kind::DOUBLE_CPU));
    let views = Views::new(&networks, Mode::Train, &nothing, &nothing);
    views.give(
        STUDENT,
        Images::Adversarial,
        Tensor::from_slice2(&[[0.0f32, 300.0, -300.0, 0.0]]).set_requires_grad(true),
    );
    views.give("robust", Images::Natural, Tensor::from_slice2(&[[900.0f32, -900.0, 0.0, 0.0]]));
    let guide = Target::Prediction(Prediction { network: "robust".into(), images: Images::Natural });
    let term = Term { temperature: 0.1, ..Term::plain("teach", Images::Adversarial, guide) };
    let loss = term.evaluate(&views, &Tensor::from_slice(&[0i64]), 1.0);
    // KL of two certainties that disagree: the difference of the logits, 3000 at this temperature, times its square.
    assert!((f64::try_from(&loss).unwrap() - 30.0).abs() < 1e-3, "{loss:?}");
}
