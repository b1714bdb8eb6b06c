//! What libtorch can do and tch does not say. The C++ side is `shim.cpp`, and a file beside each module.
//!
//! | function | libtorch |
//! |---|---|
//! | [`load_cuda`] | `dlopen` of libtorch_cuda |
//! | [`keep_memory`] | glibc's `mallopt` |
//! | [`exact_arithmetic`] | cuDNN determinism, TF32 off |
//! | [`current_stream`] | `c10::impl::DeviceGuardImplInterface::getStream` |
//! | [`set_gradient`] | `Tensor::mutable_grad` |
//! | [`on_gradient`] | `set_post_acc_grad_hooks` |
//! | [`batch_norm_across_ranks`] | an autograd function with its own backward |
//! | [`Moment`] | `c10::Event` with timing |
//! | [`peak_memory`] | `DeviceAllocator::getDeviceStats` |
//! | [`Autocast`], [`Casts`] | `at::autocast` |
//! | [`Tf32`] | TF32 in products of matrices and convolutions |
//! | [`fast_bfloat16`] | `at::cpu::get_cpu_capabilities` |
//! | [`fused_sgd`] | `at::_fused_sgd_` |
//! | [`Graph`], [`Queue`] | `at::cuda::CUDAGraph`, a stream of the pool |
//! | [`without_waits`] | `c10::cuda::warning_state` |
#![allow(unsafe_code)]

mod graph;
mod moment;
mod precision;
mod ready;
mod update;
mod waits;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Arc;

use tch::Tensor;

pub use crate::graph::{Graph, Queue, is_recording};
pub use crate::moment::{Moment, peak_memory};
pub use crate::precision::{Autocast, Casts, Tf32, fast_bfloat16};
pub use crate::ready::on_gradient;
pub use crate::update::{Sgd, fused_sgd};
pub use crate::waits::without_waits;

/// Replaces a tensor by its sum over all ranks.
pub type Sum = Arc<dyn Fn(&mut Tensor) + Send + Sync>;

type RawTensor = *mut torch_sys::C_tensor;

unsafe extern "C" {
    fn iad_free(message: *mut c_char);
    fn iad_version() -> *const c_char;
    fn iad_load_cuda() -> *mut c_char;
    fn iad_keep_memory();
    fn iad_exact_arithmetic() -> *mut c_char;
    fn iad_current_stream(device: c_int, stream: *mut *mut c_void) -> *mut c_char;
    fn iad_set_gradient(parameter: RawTensor, gradient: RawTensor) -> *mut c_char;
    fn iad_batch_norm_across_ranks(
        outputs: *mut RawTensor,
        images: RawTensor,
        weight: RawTensor,
        bias: RawTensor,
        epsilon: f64,
        context: *mut c_void,
        call: extern "C" fn(*mut c_void, RawTensor),
        drop: extern "C" fn(*mut c_void),
    ) -> *mut c_char;
}

/// Turns the shim's answer (null or a message) into a `Result`.
fn check(message: *mut c_char) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the shim answers null or a NUL-terminated string from malloc that nobody else holds.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above; it is freed once, after its last use.
    unsafe { iad_free(message) };
    Err(text)
}

/// Loads libtorch's CUDA half; must come before any other question about CUDA, whose answer libtorch remembers.
///
/// # Errors
/// The loader's message where the library or what it needs is missing, as on machines without GPUs.
pub fn load_cuda() -> Result<(), String> {
    // SAFETY: takes nothing; runs the library's initialisers, which libtorch means to be loaded this way.
    check(unsafe { iad_load_cuda() })
}

/// Keeps the memory of freed CPU tensors for the next ones instead of giving it back to the kernel. Best called before the
/// first tensor.
pub fn keep_memory() {
    // SAFETY: sets parameters of the allocator, which may be done at any time.
    unsafe { iad_keep_memory() }
}

/// Repeatable cuDNN algorithms and full float32 products on GPUs.
///
/// # Errors
/// libtorch's message.
pub fn exact_arithmetic() -> Result<(), String> {
    // SAFETY: sets flags of libtorch's global context.
    check(unsafe { iad_exact_arithmetic() })
}

/// The version of libtorch, as its headers state it.
pub fn version() -> String {
    // SAFETY: answers a string constant of the shim.
    unsafe { CStr::from_ptr(iad_version()) }.to_string_lossy().into_owned()
}

/// The CUDA stream (a `CUstream`; null is the default one) on which libtorch queues the calling thread's work for this GPU.
///
/// # Errors
/// libtorch's message where its CUDA half is not loaded or has no such GPU.
pub fn current_stream(gpu: usize) -> Result<*mut c_void, String> {
    let device = c_int::try_from(gpu).map_err(|error| error.to_string())?;
    let mut stream = std::ptr::null_mut();
    // SAFETY: `stream` is a place for one pointer, which the shim fills or leaves.
    check(unsafe { iad_current_stream(device, &mut stream) })?;
    Ok(stream)
}

/// Makes `gradient` the tensor into which backward passes add the gradient of `parameter` (same shape and type).
///
/// # Errors
/// libtorch's message when shape, type or device differ.
pub fn set_gradient(parameter: &Tensor, gradient: &Tensor) -> Result<(), String> {
    // SAFETY: both pointers are live tensors; the shim copies the handle and keeps no pointer.
    check(unsafe { iad_set_gradient(parameter.as_ptr().cast_mut(), gradient.as_ptr().cast_mut()) })
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
/// On wrong shapes, as every tch operation does.
pub fn batch_norm_across_ranks(images: &Tensor, weight: &Tensor, bias: &Tensor, epsilon: f64, sum: &Sum) -> Normalised {
    let mut outputs: [RawTensor; 4] = [std::ptr::null_mut(); 4];
    let context: *mut Sum = Box::into_raw(Box::new(Arc::clone(sum)));
    // SAFETY: the tensors live through the call; `outputs` has the four places the shim fills; `context` is a Box that the
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
    // SAFETY: the shim filled all places with tensors made by `new`, whose ownership passes to tch.
    let [output, mean, variance, count] = outputs.map(|raw| unsafe { Tensor::from_ptr(raw) });
    Normalised { output, mean, variance, count }
}

extern "C" fn call_sum(context: *mut c_void, tensor: RawTensor) {
    // SAFETY: `context` is the Box of `batch_norm_across_ranks`, alive until `drop_sum`; it is only read.
    let sum = unsafe { &*context.cast::<Sum>() };
    // SAFETY: `tensor` is a live tensor of the shim; the clone is a second handle to the same values.
    let mut tensor = unsafe { Tensor::clone_from_ptr(tensor) };
    sum(&mut tensor);
}

extern "C" fn drop_sum(context: *mut c_void) {
    // SAFETY: called once, with the pointer that `Box::into_raw` gave.
    drop(unsafe { Box::from_raw(context.cast::<Sum>()) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, no_grad};

    /// One rank: the sum is the tensor itself.
    fn alone() -> Sum {
        Arc::new(|_: &mut Tensor| {})
    }

    fn values(shape: &[i64], scale: f64) -> Tensor {
        let count: i64 = shape.iter().product();
        ((Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) * 0.7 + scale).sin() * scale + 0.3).view(shape)
    }

    #[test]
    fn on_one_rank_it_equals_batch_norm_with_its_gradients() {
        let results: Vec<Vec<Tensor>> = [true, false]
            .into_iter()
            .map(|ours| {
                let images = values(&[4, 3, 5, 5], 2.0).set_requires_grad(true);
                let weight = values(&[3], 1.5).set_requires_grad(true);
                let bias = values(&[3], 0.5).set_requires_grad(true);
                let output = if ours {
                    batch_norm_across_ranks(&images, &weight, &bias, 1e-5, &alone()).output
                } else {
                    let none = None::<Tensor>;
                    images.batch_norm(Some(&weight), Some(&bias), none.as_ref(), none.as_ref(), true, 0.1, 1e-5, false)
                };
                (&output * values(&[4, 3, 5, 5], 3.0)).sum(Kind::Double).backward();
                vec![output.detach(), images.grad(), weight.grad(), bias.grad()]
            })
            .collect();
        for (ours, native) in results[0].iter().zip(&results[1]) {
            let difference = f64::try_from((ours - native).abs().max()).unwrap();
            assert!(difference < 1e-12, "differs by {difference}");
        }
    }

    #[test]
    fn two_halves_with_summed_statistics_equal_the_whole_batch() {
        // A sum that adds the other half's contribution: what a second rank would send, computed beforehand.
        let images = values(&[6, 2, 3, 3], 1.0);
        let (weight, bias) = (values(&[2], 1.0), values(&[2], 2.0));
        let whole = batch_norm_across_ranks(&images, &weight, &bias, 1e-5, &alone());
        let contribution = Arc::new(std::sync::Mutex::new(None::<Tensor>));
        let keep = Arc::clone(&contribution);
        let record: Sum = Arc::new(move |sums: &mut Tensor| *keep.lock().unwrap() = Some(sums.copy()));
        batch_norm_across_ranks(&images.narrow(0, 4, 2), &weight, &bias, 1e-5, &record);
        let add: Sum =
            Arc::new(move |sums: &mut Tensor| drop(sums.g_add_(contribution.lock().unwrap().as_ref().unwrap())));
        let half = batch_norm_across_ranks(&images.narrow(0, 0, 4), &weight, &bias, 1e-5, &add);
        let difference = f64::try_from((half.output - whole.output.narrow(0, 0, 4)).abs().max()).unwrap();
        assert!(difference < 1e-12, "differs by {difference}");
        assert_eq!(f64::try_from(half.count).unwrap(), 54.0);
    }

    /// Maps of a forward pass in bfloat16 meet weights and statistics in single precision.
    #[test]
    fn bfloat16_maps_are_normalised_by_single_precision_statistics() {
        let results: Vec<Vec<Tensor>> = [Kind::BFloat16, Kind::Double]
            .into_iter()
            .map(|kind| {
                // All sides see the same rounded images, and gradients of the same rounded weights.
                let rounded = |shape: &[i64], scale| (values(shape, scale) + 2.0).to_kind(Kind::BFloat16).to_kind(kind);
                let parameters = if kind == Kind::Double { kind } else { Kind::Float };
                let images = rounded(&[8, 3, 6, 6], 2.0).set_requires_grad(true);
                let weight = rounded(&[3], 1.5).to_kind(parameters).set_requires_grad(true);
                let bias = rounded(&[3], 0.5).to_kind(parameters).set_requires_grad(true);
                let normalised = batch_norm_across_ranks(&images, &weight, &bias, 1e-5, &alone());
                assert_eq!((normalised.output.kind(), normalised.mean.kind()), (kind, parameters));
                (&normalised.output * rounded(&[8, 3, 6, 6], 3.0)).sum(parameters).backward();
                let gradients = [images.grad(), weight.grad(), bias.grad()];
                assert_eq!(gradients[1].kind(), parameters);
                [normalised.mean, normalised.variance, normalised.output.detach()]
                    .into_iter()
                    .chain(gradients)
                    .collect()
            })
            .collect();
        // Statistics have the digits of single precision; maps and gradients round once.
        for ((lower, exact), tolerance) in results[0].iter().zip(&results[1]).zip([1e-6, 1e-5, 0.01, 0.03, 0.01, 0.01])
        {
            let apart = f64::try_from((lower.to_kind(Kind::Double) - exact).norm() / exact.norm()).unwrap();
            assert!(apart <= tolerance, "{apart} apart, {tolerance} allowed");
        }
    }

    #[test]
    fn an_empty_rank_joins_both_passes() {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let sum: Sum = Arc::new(move |sums: &mut Tensor| {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let _ = sums.g_add_scalar_(1.0); // as if another rank had samples
        });
        let images = Tensor::zeros([0, 2, 3, 3], tch::kind::DOUBLE_CPU).set_requires_grad(true);
        let weight = Tensor::ones([2], tch::kind::DOUBLE_CPU).set_requires_grad(true);
        let bias = Tensor::zeros([2], tch::kind::DOUBLE_CPU).set_requires_grad(true);
        let normalised = batch_norm_across_ranks(&images, &weight, &bias, 1e-5, &sum);
        normalised.output.sum(Kind::Double).backward();
        assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 2);
        assert_eq!(images.grad().size(), [0, 2, 3, 3]);
        assert_eq!(f64::try_from(weight.grad().abs().max()).unwrap(), 0.0);
    }

    #[test]
    fn a_machine_without_gpu_has_no_stream() {
        assert!(tch::Cuda::is_available() || current_stream(0).is_err());
    }

    #[test]
    fn gradients_are_added_into_the_given_place() {
        let parameter = Tensor::ones([3], tch::kind::FLOAT_CPU).set_requires_grad(true);
        let buffer = Tensor::zeros([8], tch::kind::FLOAT_CPU);
        set_gradient(&parameter, &buffer.narrow(0, 2, 3)).unwrap();
        (&parameter * 2.0).sum(Kind::Float).backward();
        (&parameter * 3.0).sum(Kind::Float).backward();
        let expected = Tensor::from_slice(&[0f32, 0., 5., 5., 5., 0., 0., 0.]);
        assert!(no_grad(|| buffer.equal(&expected)));
        assert!(set_gradient(&parameter, &Tensor::zeros([2], tch::kind::FLOAT_CPU)).is_err());
    }
}
