//! Batch normalisation over the ranks by libtorch's kernels for it: `batch_norm_stats`, `batch_norm_gather_stats_with_counts`,
//! `batch_norm_elemt`, `batch_norm_backward_reduce` and `batch_norm_backward_elemt`.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use tch::{Device, Tensor};

use crate::answer::{RawTensor, check};
use crate::batch_norm::{RawSum, Sum, call_sum, drop_sum};

/// Where a CPU computes the kernels' formulas, for tests.
const TEST: &str = "IAD_TEST_FUSED";

/// A `Ranks` of the C++ side.
#[repr(C)]
struct RawRanks {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn iad_ranks_new(
        ranks: *mut *mut RawRanks,
        context: *mut c_void,
        call: RawSum,
        drop: extern "C" fn(*mut c_void),
        rank: i64,
        count: i64,
    ) -> *mut c_char;
    fn iad_ranks_expect(ranks: *mut RawRanks, own: i64, all: i64);
    fn iad_ranks_free(ranks: *mut RawRanks);
    fn iad_fused_batch_norm(
        output: *mut RawTensor,
        images: RawTensor,
        weight: RawTensor,
        bias: RawTensor,
        running_mean: RawTensor,
        running_variance: RawTensor,
        momentum: f64,
        epsilon: f64,
        ranks: *mut RawRanks,
    ) -> *mut c_char;
}

/// Whether libtorch has the kernels for this device: for GPUs alone. A CPU computes their formulas where `IAD_TEST_FUSED` is set.
pub fn has_fused_batch_norm(device: Device) -> bool {
    device.is_cuda() || std::env::var_os(TEST).is_some()
}

/// The ranks that share the statistics of a batch, as one of them sees them.
pub struct StatisticsRanks(*mut RawRanks);

// SAFETY: the C++ side locks what it changes, and `Sum` may be called from any thread.
unsafe impl Send for StatisticsRanks {}
// SAFETY: as above.
unsafe impl Sync for StatisticsRanks {}

impl StatisticsRanks {
    /// Rank `rank` of `count`, whose tensors `sum` adds up.
    ///
    /// # Panics
    /// Where there is no memory for it.
    pub fn new(sum: &Sum, rank: usize, count: usize) -> Self {
        let mut raw = std::ptr::null_mut();
        let context: *mut Sum = Box::into_raw(Box::new(Arc::clone(sum)));
        // SAFETY: `raw` is a place for one pointer, filled where the C++ side answers null; `context` is a Box that the shim hands
        // to `call_sum` until it gives it to `drop_sum` once.
        let made =
            check(unsafe { iad_ranks_new(&mut raw, context.cast(), call_sum, drop_sum, rank as i64, count as i64) });
        made.unwrap_or_else(|message| panic!("{message}"));
        Self(raw)
    }

    /// Differentiated passes of `own` images on this rank, until the next call, are those of `all` images over all ranks. The backward
    /// pass then needs no kernel to convert the numbers of values. Passes of another number of images are computed as without this.
    pub fn expect(&self, own: usize, all: usize) {
        // SAFETY: the pointer came from `iad_ranks_new`, and the C++ side locks what this changes.
        unsafe { iad_ranks_expect(self.0, own as i64, all as i64) }
    }
}

impl Drop for StatisticsRanks {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `iad_ranks_new`; graphs that still use what it points to own it too.
        unsafe { iad_ranks_free(self.0) }
    }
}

/// Batch normalisation of `images [N, C, H, W]` by the mean and variance over all ranks, differentiable once in images, weight and
/// bias. N may be 0 on some ranks; all ranks together need two values of a channel. The `running` mean and variance `[C]`, if there
/// are any, take up the batch's with `momentum`, the variance times n / (n - 1).
///
/// Each pass calls the ranks' sum once: the forward pass with a table `[ranks, 2 C + 1]` that holds every rank's means, reciprocal
/// deviations and count, the backward pass with two sums of each channel `[2 C]`. Both have the type of the weight.
///
/// The gradient of the images is that of the sum of all ranks' losses; those of weight and bias are this rank's part.
///
/// # Panics
/// On wrong shapes, as every tch operation does.
pub fn fused_batch_norm(
    images: &Tensor,
    [weight, bias]: [&Tensor; 2],
    running: Option<[&Tensor; 2]>,
    momentum: f64,
    epsilon: f64,
    ranks: &StatisticsRanks,
) -> Tensor {
    let raw = |tensor: &Tensor| tensor.as_ptr().cast_mut();
    let [running_mean, running_variance] = running.map_or([std::ptr::null_mut(); 2], |both| both.map(raw));
    let mut output: RawTensor = std::ptr::null_mut();
    // SAFETY: the tensors and the ranks live through the call; `output` is a place for one tensor.
    let answer = check(unsafe {
        iad_fused_batch_norm(
            &mut output,
            raw(images),
            raw(weight),
            raw(bias),
            running_mean,
            running_variance,
            momentum,
            epsilon,
            ranks.0,
        )
    });
    if let Err(message) = answer {
        panic!("batch norm across ranks of {:?}: {message}", images.size());
    }
    // SAFETY: the C++ side filled the place with a tensor made by `new`, whose ownership passes to tch.
    unsafe { Tensor::from_ptr(output) }
}

#[cfg(test)]
mod tests;
