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
        rate_on_device: RawTensor,
    ) -> *mut c_char;
}

/// The numbers of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// The learning rate, unless it stands on the device.
    pub rate: f64,
    /// The factor of the velocity.
    pub momentum: f64,
    /// The factor of the values that is added to their gradients.
    pub weight_decay: f64,
}

/// g += decay * w; v = momentum * v + g; w -= rate * v, in place and in one pass. Without momentum, `velocity` is left alone.
/// The rate is `rate_on_device`, a scalar (on a GPU float32), if it is given. Where `stay` (a float32 scalar on the device) is
/// 1, nothing moves, whatever the gradients are.
///
/// # Panics
/// Buffers of other shapes, types or devices, as every tch operation does.
pub fn fused_sgd(
    values: &Tensor,
    gradients: &Tensor,
    velocity: &Tensor,
    stay: &Tensor,
    numbers: Sgd,
    rate_on_device: Option<&Tensor>,
) {
    let Sgd { rate, momentum, weight_decay } = numbers;
    let raw = |tensor: &Tensor| tensor.as_ptr().cast_mut();
    let velocity = if momentum == 0.0 { std::ptr::null_mut() } else { raw(velocity) };
    let rate_on_device = rate_on_device.map_or(std::ptr::null_mut(), raw);
    let answer = no_grad(|| {
        let (values, gradients, stay) = (raw(values), raw(gradients), raw(stay));
        // SAFETY: the tensors live through the call; the shim takes null for no velocity and for no rate on the device,
        // and keeps no pointer.
        check(unsafe { iad_fused_sgd(values, gradients, velocity, stay, momentum, weight_decay, rate, rate_on_device) })
    });
    answer.unwrap_or_else(|message| panic!("SGD on {:?}: {message}", values.size()));
}
