//! The golden values of the attacks in L2 (tests/fixtures/golden_l2.json), in float64.

use serde_json::Value;
use tch::{Kind, Tensor};

pub(super) use crate::fixtures::tensor_of;

/// The case of this name.
pub(super) fn golden(name: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../../../../tests/fixtures/golden_l2.json")).unwrap();
    all[name].clone()
}

/// Class numbers.
pub(super) fn classes(value: &Value) -> Tensor {
    tensor_of(value).to_kind(Kind::Int64)
}

/// The case's network of two layers.
pub(super) fn network(case: &Value) -> impl Fn(&Tensor) -> Tensor + use<> {
    let [w1, b1, w2, b2] = ["W1", "b1", "W2", "b2"].map(|name| tensor_of(&case[name]));
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
