//! The fused update against its formula, its buffers' places, and a gradient that is not finite.

use std::sync::Arc;

use comm::Single;
use proptest::prelude::*;
use tch::{Device, no_grad};

use super::*;
use crate::config::Comm;
use crate::fixtures::pattern;
use crate::model::{Form, Model};

fn parameters(kind: Kind) -> Gradients {
    let form = Form { architecture: "convnet".parse().unwrap(), image: [1, 8, 8], classes: 4 };
    let mut model = Model::build(form, 1, kind, Device::Cpu, None);
    Gradients::flatten(&mut model, Arc::new(Single), &Comm::default()).unwrap()
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
        let mut parameters = parameters(kind);
        let mut sgd = Sgd::new(&parameters.values, momentum, weight_decay);
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
    let mut parameters = parameters(Kind::Float);
    let mut sgd = Sgd::new(&parameters.values, 0.9, 1e-4);
    let places = |parameters: &Gradients, sgd: &Sgd| {
        [&parameters.values, &parameters.gradients, &sgd.velocity].map(|tensor| tensor.data_ptr())
    };
    let before = places(&parameters, &sgd);
    for step in 0..3 {
        set_gradients(&mut parameters, step);
        sgd.step(&mut parameters, Rate::Number(0.1), &Tensor::from(true));
    }
    assert_eq!(before, places(&parameters, &sgd));
}

#[test]
fn what_is_not_finite_moves_not_a_bit() {
    for kind in [Kind::Float, Kind::Double] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut parameters = parameters(kind);
            let mut sgd = Sgd::new(&parameters.values, 0.9, 1e-4);
            set_gradients(&mut parameters, 1);
            sgd.step(&mut parameters, Rate::Number(0.1), &Tensor::from(true));
            let before = [parameters.values.copy(), sgd.velocity.copy()];
            let _ = no_grad(|| parameters.gradients.get(5).fill_(bad));
            sgd.step(&mut parameters, Rate::Number(0.1), &Tensor::from(false));
            assert!(before[0].equal(&parameters.values) && before[1].equal(&sgd.velocity), "{kind:?}, {bad}");
        }
    }
}
