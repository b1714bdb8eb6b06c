//! The fused update against its formula, its buffers' places, and a gradient that is not finite.

use std::sync::Arc;

use comm::Single;
use proptest::prelude::*;
use tch::{Device, no_grad};

use super::*;
use crate::config::Comm;
use crate::fixtures::pattern;
use crate::model::{Model, ModelSpec, Named};

fn parameters_of(architecture: &str, kind: Kind) -> (Gradients, Model) {
    let form = ModelSpec::new(architecture.parse().unwrap(), [1, 8, 8], 4);
    let mut model = Model::build(form, 1, kind, Device::Cpu, None);
    (Gradients::flatten(&mut model, Arc::new(Single), &Comm::default()).unwrap(), model)
}

fn parameters(kind: Kind) -> (Gradients, Model) {
    parameters_of("convnet", kind)
}

/// The optimizer of a `[optimizer]` table with these lines.
fn optimizer(lines: &str, (parameters, model): &(Gradients, Model)) -> Optimizer {
    let text = format!("lr = 1.0\n{lines}");
    let text = if lines.contains("lr_policy") { text } else { format!("{text}\nlr_policy = \"constant\"") };
    Optimizer::new(&toml::from_str(&text).unwrap(), parameters, model)
}

fn sgd(momentum: f64, weight_decay: f64, of: &(Gradients, Model)) -> Optimizer {
    optimizer(&format!("momentum = {momentum:?}\nweight_decay = {weight_decay:?}"), of)
}

fn set_gradients(parameters: &mut Gradients, key: u64) {
    let count = parameters.gradients.numel();
    let values = pattern(count, key) - 0.5;
    parameters.gradients.copy_(&values);
}

fn largest(one: &Tensor, other: &Tensor) -> f64 {
    f64::try_from(((one - other).abs() / other.abs().clamp_min(1.0)).max()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn steps_follow_the_formula(
        momentum in prop_oneof![Just(0.0), 0.01f64..0.99],
        weight_decay in prop_oneof![Just(0.0), 1e-5f64..0.1],
        rate in 1e-4f64..1.0,
        double: bool,
    ) {
        let (kind, tolerance) = if double { (Kind::Double, 1e-14) } else { (Kind::Float, 1e-6) };
        let parameters = parameters(kind);
        let mut sgd = sgd(momentum, weight_decay, &parameters);
        let mut parameters = parameters.0;
        let finite = Tensor::from(true);
        let (mut weights, mut velocity) = (parameters.values.copy(), parameters.values.zeros_like());
        for step in 0..3 {
            set_gradients(&mut parameters, step);
            sgd.step(&mut parameters, Rate::Number(rate), &finite);
            // The first step's velocity is the gradient itself.
            velocity = &velocity * momentum + &parameters.gradients + &weights * weight_decay;
            weights -= &velocity * rate;
            let apart = largest(&parameters.values, &weights);
            prop_assert!(apart <= tolerance, "weights {} apart", apart);
            let expected = if momentum == 0.0 { velocity.zeros_like() } else { velocity.shallow_clone() };
            let apart = largest(&sgd.velocity, &expected);
            prop_assert!(apart <= tolerance, "velocity {} apart", apart);
        }
    }
}

#[test]
fn buffers_keep_their_places() {
    let parameters = parameters(Kind::Float);
    let mut sgd = sgd(0.9, 1e-4, &parameters);
    let mut parameters = parameters.0;
    let places = |parameters: &Gradients, sgd: &Optimizer| {
        [&parameters.values, &parameters.gradients, &sgd.velocity].map(|tensor| tensor.data_ptr())
    };
    let before = places(&parameters, &sgd);
    for step in 0..3 {
        set_gradients(&mut parameters, step);
        sgd.step(&mut parameters, Rate::Number(0.1), &Tensor::from(true));
    }
    assert_eq!(before, places(&parameters, &sgd));
}

/// The rules whose arithmetic is not the fused SGD of [`steps_follow_the_formula`].
const RULES: [&str; 5] = [
    "nesterov = true",
    "kind = \"adamw\"",
    "nesterov = true\nlr_policy = { one_cycle_cosine = {} }",
    "no_weight_decay = [\"batch_norm\"]\nclip_grad_norm = 0.5",
    "kind = \"adamw\"\nno_weight_decay = [\"bias\"]",
];

#[test]
fn what_is_not_finite_moves_not_a_bit() {
    for kind in [Kind::Float, Kind::Double] {
        for rule in ["momentum = 0.9"].into_iter().chain(RULES) {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let parameters = parameters(kind);
                let mut optimizer = optimizer(rule, &parameters);
                let mut parameters = parameters.0;
                optimizer.set_momentum(Some(0.9));
                set_gradients(&mut parameters, 1);
                optimizer.step(&mut parameters, Rate::Number(0.1), &Tensor::from(true));
                let state = |optimizer: &Optimizer, parameters: &Gradients| -> Vec<Tensor> {
                    let buffers = optimizer.buffers().into_iter().map(|(_, buffer)| buffer);
                    buffers.chain([&parameters.values]).map(Tensor::copy).collect()
                };
                let before = state(&optimizer, &parameters);
                let _ = no_grad(|| parameters.gradients.get(5).fill_(bad));
                optimizer.step(&mut parameters, Rate::Number(0.1), &Tensor::from(false));
                let after = state(&optimizer, &parameters);
                let same = before.iter().zip(&after).all(|(before, after)| before.equal(after));
                assert!(same, "{kind:?}, {rule}, {bad}");
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Golden {
    values: Vec<f64>,
    gradients: Vec<Vec<f64>>,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    toml: String,
    rates: Vec<f64>,
    momenta: Vec<Option<f64>>,
    after: Vec<Vec<f64>>,
}

/// Source: torch.optim and clip_grad_norm_ in float64, by tests/fixtures/make_optimizer.py.
#[test]
fn steps_are_those_of_pytorch() {
    let golden: Golden = serde_json::from_str(include_str!("../../../../tests/fixtures/optimizer.json")).unwrap();
    assert!(golden.cases.len() >= 8);
    for Case { toml, rates, momenta, after } in golden.cases {
        for on_device in [false, true] {
            let (mut parameters, model) = parameters_of("resnet8", Kind::Double);
            let repeats = parameters.values.numel().div_ceil(golden.values.len()) as i64;
            let count = parameters.values.numel() as i64;
            let spread = |values: &[f64]| Tensor::from_slice(values).repeat([repeats]).narrow(0, 0, count);
            parameters.values.copy_(&spread(&golden.values));
            let of = (parameters, model);
            let mut optimizer = optimizer(&toml, &of);
            let (mut parameters, model) = of;
            for (step, rate) in rates.iter().enumerate() {
                parameters.gradients.copy_(&spread(&golden.gradients[step]));
                optimizer.set_momentum(momenta[step]);
                let scalar = Tensor::from(*rate);
                let rate = if on_device { Rate::OnDevice(&scalar) } else { Rate::Number(*rate) };
                optimizer.step(&mut parameters, rate, &Tensor::from(true));
            }
            // A summary of each tensor: its sum and the sum of its squares.
            for (Named { name, tensor }, expected) in model.parameters.iter().zip(&after) {
                let found =
                    [tensor.sum(Kind::Double), tensor.square().sum(Kind::Double)].map(|x| f64::try_from(x).unwrap());
                for (found, expected) in found.into_iter().zip(expected) {
                    let apart = (found - expected).abs() / expected.abs().max(1.0);
                    assert!(apart < 1e-10, "{toml}, {name}: {found}, expected {expected}");
                }
            }
            assert_eq!(model.parameters.len(), after.len());
        }
    }
}
