//! The golden values of the attacks in L2 (tests/fixtures/golden_l2.json), in float64.

use serde_json::Value;
use tch::{Kind, Tensor};

/// The case of this name.
pub(super) fn golden(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/golden_l2.json")).unwrap();
    all[name].clone()
}

/// Lists of lists of numbers as a tensor in float64.
pub(super) fn tensor(value: &Value) -> Tensor {
    fn collect(value: &Value, numbers: &mut Vec<f64>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| collect(value, numbers)),
            number => numbers.push(number.as_f64().unwrap()),
        }
    }
    let (mut shape, mut inner) = (vec![], value);
    while let Some(values) = inner.as_array() {
        shape.push(values.len() as i64);
        inner = &values[0];
    }
    let mut numbers = vec![];
    collect(value, &mut numbers);
    Tensor::from_slice(&numbers).view(shape.as_slice())
}

/// Class numbers.
pub(super) fn classes(value: &Value) -> Tensor {
    tensor(value).to_kind(Kind::Int64)
}

/// The case's network of two layers.
pub(super) fn network(case: &Value) -> impl Fn(&Tensor) -> Tensor + use<> {
    let [w1, b1, w2, b2] = ["W1", "b1", "W2", "b2"].map(|name| tensor(&case[name]));
    let rectified = case["network"].as_str().unwrap().contains("relu");
    move |images| {
        let inner = images.flatten(1, -1).linear(&w1, Some(&b1));
        (if rectified { inner.relu() } else { inner.tanh() }).linear(&w2, Some(&b2))
    }
}

/// The largest difference is at most `tolerance`.
#[track_caller]
pub(super) fn near(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let difference = f64::try_from((found - expected).abs().max()).unwrap();
    assert!(difference <= tolerance, "{what}: {difference}\n{found}, golden {expected}");
}
