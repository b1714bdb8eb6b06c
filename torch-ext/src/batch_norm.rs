//! Batch normalisation whose statistics are those of the batch over all ranks.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use tch::Tensor;

use crate::answer::{RawTensor, check};

/// Replaces a tensor by its sum over all ranks, or tells why it cannot.
pub type Sum = Arc<dyn Fn(&mut Tensor) -> Result<(), String> + Send + Sync>;

/// The same as the C++ side calls it: where it fails it answers false, and the place of so many bytes holds the reason.
pub(crate) type RawSum = extern "C" fn(*mut c_void, RawTensor, *mut c_char, usize) -> bool;

unsafe extern "C" {
    fn iad_batch_norm_across_ranks(
        outputs: *mut RawTensor,
        images: RawTensor,
        weight: RawTensor,
        bias: RawTensor,
        epsilon: f64,
        context: *mut c_void,
        call: RawSum,
        drop: extern "C" fn(*mut c_void),
    ) -> *mut c_char;
}

/// Images normalised by statistics over all ranks, and those statistics.
pub struct Normalised {
    /// The normalised, scaled and shifted images, in the shape of the input.
    pub output: Tensor,
    /// Mean per channel `[C]`.
    pub mean: Tensor,
    /// Biased variance per channel `[C]`.
    pub variance: Tensor,
    /// Number of values per channel over all ranks `[1]`, float64.
    pub count: Tensor,
}

/// Batch normalisation of `images [N, C, ...]` by the mean and variance over all ranks, differentiable in images, weight
/// and bias. N may be 0 on some ranks. Both passes call `sum` once, so all ranks must run the same passes in one order.
///
/// The gradient of the images is that of the sum of all ranks' losses; those of weight and bias are this rank's part.
///
/// # Panics
/// On wrong shapes and a sum that fails, as every tch operation does; a sum that fails in the backward pass is an error of that pass.
pub fn batch_norm_across_ranks(images: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64, sum: &Sum) -> Normalised {
    let mut outputs: [RawTensor; 4] = [std::ptr::null_mut(); 4];
    let context: *mut Sum = Box::into_raw(Box::new(Arc::clone(sum)));
    // SAFETY: the tensors live through the call; `outputs` has the four places the C++ side fills; `context` is a Box that the
    // shim hands to `call_sum` until it gives it to `drop_sum` once, from whichever graph is dropped last.
    let answer = check(unsafe {
        iad_batch_norm_across_ranks(
            outputs.as_mut_ptr(),
            images.as_ptr().cast_mut(),
            weight.as_ptr().cast_mut(),
            bias.as_ptr().cast_mut(),
            epsilon,
            context.cast(),
            call_sum,
            drop_sum,
        )
    });
    if let Err(message) = answer {
        panic!("batch norm across ranks of {:?}: {message}", images.size());
    }
    // SAFETY: the C++ side filled all places with tensors made by `new`, whose ownership passes to tch.
    let [output, mean, variance, count] = outputs.map(|raw| unsafe { Tensor::from_ptr(raw) });
    Normalised { output, mean, variance, count }
}

pub(crate) extern "C" fn call_sum(context: *mut c_void, tensor: RawTensor, reason: *mut c_char, room: usize) -> bool {
    // SAFETY: `context` is the Box of `batch_norm_across_ranks`, alive until `drop_sum`; it is only read.
    let sum = unsafe { &*context.cast::<Sum>() };
    // SAFETY: `tensor` is a live tensor of the C++ side; the clone is a second handle to the same values.
    let mut tensor = unsafe { Tensor::clone_from_ptr(tensor) };
    let Err(message) = sum(&mut tensor) else { return true };
    // SAFETY: a place of `room` bytes, zeros so far; the last of them stays so.
    let place = unsafe { std::slice::from_raw_parts_mut(reason.cast::<u8>(), room) };
    let count = message.len().min(room.saturating_sub(1));
    place[..count].copy_from_slice(&message.as_bytes()[..count]);
    false
}

pub(crate) extern "C" fn drop_sum(context: *mut c_void) {
    // SAFETY: called once, with the pointer that `Box::into_raw` gave.
    drop(unsafe { Box::from_raw(context.cast::<Sum>()) });
}

#[cfg(test)]
mod tests;
