//! The optimizer's update in one pass over its buffers.

use std::ffi::c_char;

use tch::{Tensor, no_grad};

use super::{RawTensor, check};

unsafe extern "C" {
    fn iad_fused_sgd(
        values: RawTensor,
        gradients: RawTensor,
        velocity: RawTensor,
        stay: RawTensor,
        momentum: f64,
        weight_decay: f64,
        rate: f64,
    ) -> *mut c_char;
}

/// The numbers of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// The learning rate.
    pub rate: f64,
    /// The factor of the velocity.
    pub momentum: f64,
    /// The factor of the values that is added to their gradients.
    pub weight_decay: f64,
}

/// g += decay * w; v = momentum * v + g; w -= rate * v, in place and in one pass. Without momentum, `velocity` is left alone.
/// Where `stay` (a float32 scalar on the device) is 1, nothing moves, whatever the gradients are.
///
/// # Panics
/// Buffers of other shapes, types or devices, as every tch operation does.
pub fn fused_sgd(values: &Tensor, gradients: &Tensor, velocity: &Tensor, stay: &Tensor, numbers: Sgd) {
    let Sgd { rate, momentum, weight_decay } = numbers;
    let raw = |tensor: &Tensor| tensor.as_ptr().cast_mut();
    let velocity = if momentum == 0.0 { std::ptr::null_mut() } else { raw(velocity) };
    let answer = no_grad(|| {
        let (values, gradients, stay) = (raw(values), raw(gradients), raw(stay));
        // SAFETY: the tensors live through the call; the shim takes a null velocity for none and keeps no pointer.
        check(unsafe { iad_fused_sgd(values, gradients, velocity, stay, momentum, weight_decay, rate) })
    });
    answer.unwrap_or_else(|message| panic!("SGD on {:?}: {message}", values.size()));
}
