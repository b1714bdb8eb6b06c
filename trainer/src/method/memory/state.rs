//! The tensors of a memory.

use tch::{Device, Kind, Tensor};

/// Zeros of a memory.
pub(super) fn zeros(size: &[i64], device: Device) -> Tensor {
    Tensor::zeros(size, (Kind::Double, device))
}

/// Copies `values` into the memory of `tensor`.
pub(super) fn set(tensor: &Tensor, values: &Tensor) {
    tensor.shallow_clone().copy_(values);
}
