//! What the tests share with tests/fixtures/make.py.

use tch::{Kind, Tensor};

/// `count` numbers in [0, 1), exact multiples of 2^-32, as in make.py.
pub(crate) fn pattern(count: usize, key: u64) -> Tensor {
    let number =
        |index: u64| ((index * 2_654_435_761 + key * 40_503 + 12_345) % (1 << 32)) as f64 / (1u64 << 32) as f64;
    Tensor::from_slice(&(0..count as u64).map(number).collect::<Vec<f64>>())
}

/// A weighted sum of the values and their norm: together they notice any difference that matters.
pub(crate) fn digest(tensor: &Tensor) -> [f64; 2] {
    let tensor = tensor.to_kind(Kind::Double);
    let weights = pattern(tensor.numel(), 99) + 1.0;
    [(tensor.flatten(0, -1) * weights).sum(Kind::Double), tensor.norm()].map(|value| f64::try_from(value).unwrap())
}
