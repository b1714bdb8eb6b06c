//! The optimizer's update in one pass over its buffers.

use std::ffi::c_char;

use tch::{Tensor, no_grad};

use crate::answer::{RawTensor, check};

unsafe extern "C" {
    fn iad_fused_sgd(
        values: RawTensor,
        gradients: RawTensor,
        velocity: RawTensor,
        stay: RawTensor,
        momentum: f64,
        nesterov: bool,
        weight_decay: f64,
        rate: f64,
        rate_on_device: RawTensor,
    ) -> *mut c_char;

    fn iad_fused_adamw(
        values: RawTensor,
        gradients: RawTensor,
        moments: *const RawTensor,
        steps: RawTensor,
        stay: RawTensor,
        betas: *const f64,
        eps: f64,
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
    /// Whether the step is g + momentum * v instead of v.
    pub nesterov: bool,
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
    let Sgd { rate, momentum, nesterov, weight_decay } = numbers;
    let raw = |tensor: &Tensor| tensor.as_ptr().cast_mut();
    let velocity = if momentum == 0.0 { std::ptr::null_mut() } else { raw(velocity) };
    let rate_on_device = rate_on_device.map_or(std::ptr::null_mut(), raw);
    let answer = no_grad(|| {
        let (values, gradients, stay) = (raw(values), raw(gradients), raw(stay));
        // SAFETY: the tensors live through the call; the C++ side takes null for no velocity and for no rate on the device,
        // and keeps no pointer.
        let answer = unsafe {
            iad_fused_sgd(values, gradients, velocity, stay, momentum, nesterov, weight_decay, rate, rate_on_device)
        };
        check(answer)
    });
    answer.unwrap_or_else(|message| panic!("SGD on {:?}: {message}", values.size()));
}

/// The numbers of an update by AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// The learning rate, unless it is on the device.
    pub rate: f64,
    /// The decays of the mean gradient and of the mean squared gradient.
    pub betas: [f64; 2],
    /// Added to the root of the mean squared gradient.
    pub eps: f64,
    /// Times the rate, the share of the values that is taken away.
    pub weight_decay: f64,
}

/// PyTorch's AdamW in place and in one pass. `moments` are the means of the gradients and of their squares; `steps`, a
/// float32 scalar on the device, counts the updates, this one included. `stay` and `rate_on_device` as in [`fused_sgd`].
///
/// # Panics
/// Buffers of other shapes, types or devices, as every tch operation does.
pub fn fused_adamw(
    [values, gradients]: [&Tensor; 2],
    moments: [&Tensor; 2],
    steps: &Tensor,
    stay: &Tensor,
    numbers: AdamW,
    rate_on_device: Option<&Tensor>,
) {
    let AdamW { rate, betas, eps, weight_decay } = numbers;
    let raw = |tensor: &Tensor| tensor.as_ptr().cast_mut();
    let (moments, rate_on_device) = (moments.map(raw), rate_on_device.map_or(std::ptr::null_mut(), raw));
    let answer = no_grad(|| {
        let (moments, betas) = (moments.as_ptr(), betas.as_ptr());
        let (steps, stay) = (raw(steps), raw(stay));
        // SAFETY: the tensors and both arrays of two live through the call; the shim takes null for no rate on the
        // device, and keeps no pointer.
        let answer = unsafe {
            iad_fused_adamw(
                raw(values),
                raw(gradients),
                moments,
                steps,
                stay,
                betas,
                eps,
                weight_decay,
                rate,
                rate_on_device,
            )
        };
        check(answer)
    });
    answer.unwrap_or_else(|message| panic!("AdamW on {:?}: {message}", values.size()));
}
