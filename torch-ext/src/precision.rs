//! Which types libtorch computes in: autocast, TF32, and what the processor is made for.

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::Device;

use crate::answer::check;

#[repr(C)]
#[derive(Default)]
struct State {
    cuda: bool,
    enabled: bool,
    caches: bool,
    kind: i8,
}

unsafe extern "C" {
    fn iad_autocast_begin(cuda: bool, before: *mut State) -> *mut c_char;
    fn iad_autocast_end(before: *const State) -> *mut c_char;
    fn iad_forget_casts() -> *mut c_char;
    fn iad_set_tf32(
        convolutions: bool,
        matrices: bool,
        convolutions_before: *mut bool,
        matrices_before: *mut bool,
    ) -> *mut c_char;
    fn iad_cpu_instructions() -> *mut c_char;
    fn iad_free(text: *mut c_char);
    fn iad_fast_bfloat16() -> bool;
}

/// While it lives, convolutions and other products of this thread take and give bfloat16, whatever they are given; what needs
/// more digits computes in float32. Its end restores what was before. For forward passes: backward passes need none.
pub struct Autocast {
    before: State,
    /// The state is the thread's.
    _here: PhantomData<*const ()>,
}

impl Autocast {
    /// Begins on `device`.
    ///
    /// # Panics
    /// A device of which libtorch has no autocast.
    pub fn bfloat16(device: Device) -> Self {
        let mut before = State::default();
        // SAFETY: `before` is a place for the answer, of the layout that the C++ side declares.
        let answer = check(unsafe { iad_autocast_begin(device.is_cuda(), &mut before) });
        answer.unwrap_or_else(|message| panic!("autocast on {device:?}: {message}"));
        Self { before, _here: PhantomData }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: `before` is what the C++ side answered when this began.
        let _ = check(unsafe { iad_autocast_end(&self.before) });
    }
}

/// While it lives, the weights must not change: [`Autocast`] casts each of them that wants a gradient once, and uses the cast
/// again, in every pass with gradients. Its beginning and its end forget all casts. libtorch keeps them for the whole process,
/// so one lives at a time; another thread's waits.
pub struct Casts {
    _alone: MutexGuard<'static, ()>,
}

impl Casts {
    /// Begins without any cast.
    pub fn fresh() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        forget_casts();
        Self { _alone: alone }
    }
}

impl Drop for Casts {
    fn drop(&mut self) {
        forget_casts();
    }
}

fn forget_casts() {
    // SAFETY: takes nothing; the cache is locked by libtorch.
    let _ = check(unsafe { iad_forget_casts() });
}

/// While it lives, GPUs may or may not round the factors of float32 products to TF32 (10 bits), in forward and backward
/// passes. Its end restores what was before. CPUs always compute in full.
pub struct Tf32 {
    before: (bool, bool),
}

impl Tf32 {
    /// Begins for the whole process: in convolutions, and in other products of matrices.
    pub fn allow(convolutions: bool, matrices: bool) -> Self {
        Self { before: set_tf32((convolutions, matrices)) }
    }
}

impl Drop for Tf32 {
    fn drop(&mut self) {
        set_tf32(self.before);
    }
}

/// Sets what convolutions and what other products may do; the answer is what they might before.
fn set_tf32((convolutions, matrices): (bool, bool)) -> (bool, bool) {
    let mut before = (false, false);
    // SAFETY: sets flags of libtorch's global context; `before` holds places for the answers.
    let _ = check(unsafe { iad_set_tf32(convolutions, matrices, &mut before.0, &mut before.1) });
    before
}

/// The instructions that libtorch computes with on `device`: on a CPU the set that its kernels were chosen for, as in
/// `AVX512 with bfloat16`; on a GPU the version of CUDA.
pub fn instructions(device: Device) -> String {
    if device.is_cuda() {
        let version = crate::cuda_version().unwrap_or_default();
        return format!("CUDA {}.{}", version / 1000, version % 1000 / 10);
    }
    // SAFETY: takes nothing; answers a string that is ours, or null.
    let text = unsafe { iad_cpu_instructions() };
    if text.is_null() {
        return "unknown instructions".into();
    }
    // SAFETY: not null, so a string with its end, which is copied before it is freed once.
    let set = unsafe {
        let set = CStr::from_ptr(text).to_string_lossy().into_owned();
        iad_free(text);
        set
    };
    if fast_bfloat16() { format!("{set} with bfloat16") } else { set }
}

/// Whether the processor multiplies bfloat16 by instructions of its own (AVX-512 BF16 or AMX). Without them it is slower than
/// float32.
pub fn fast_bfloat16() -> bool {
    // SAFETY: takes nothing and asks the processor.
    unsafe { iad_fast_bfloat16() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor, no_grad};

    fn matrix() -> Tensor {
        ((Tensor::arange(16, tch::kind::FLOAT_CPU) * 0.37).sin() + 1.0).view([4, 4])
    }

    #[test]
    fn a_region_casts_products_and_ends_with_its_guard() {
        let product = || matrix().matmul(&matrix()).kind();
        let region = Autocast::bfloat16(Device::Cpu);
        assert_eq!(product(), Kind::BFloat16);
        {
            let _inner = Autocast::bfloat16(Device::Cpu);
            assert_eq!(product(), Kind::BFloat16);
        }
        assert_eq!(product(), Kind::BFloat16, "the inner region took the outer one with it");
        drop(region);
        assert_eq!(product(), Kind::Float);
        let panicked = std::panic::catch_unwind(|| {
            let _region = Autocast::bfloat16(Device::Cpu);
            panic!("on purpose");
        });
        assert!(panicked.is_err() && product() == Kind::Float);
    }

    /// The trap of libtorch's cache: a cast outlives a change of its weight within one region, and a cast made without gradient
    /// serves passes that want one.
    #[test]
    fn casts_are_used_again_with_gradients_and_forgotten_with_their_guard() {
        let weight = matrix().copy().set_requires_grad(true);
        let images = Tensor::ones([1, 4], tch::kind::FLOAT_CPU);
        let pass = || {
            let _region = Autocast::bfloat16(Device::Cpu);
            images.matmul(&weight).to_kind(Kind::Float)
        };
        let casts = Casts::fresh();
        let _ = no_grad(pass);
        let before = pass();
        assert!(before.requires_grad(), "the cast of the pass without gradient was taken");
        before.sum(Kind::Float).backward();
        assert_eq!(weight.grad().kind(), Kind::Float);
        assert_eq!(Vec::<f32>::try_from(weight.grad().flatten(0, -1)).unwrap(), [1f32; 16]);
        no_grad(|| drop(weight.shallow_clone().g_mul_scalar_(2.0)));
        assert!(pass().equal(&before), "each pass cast the weight anew: nothing is kept");
        drop(casts);
        let doubled: Tensor = before * 2.0;
        assert!(no_grad(|| pass().equal(&doubled)));
        assert!(pass().equal(&doubled));
    }

    #[test]
    fn tf32_goes_back_to_what_it_was() {
        let outer = Tf32::allow(true, true);
        let inner = Tf32::allow(true, false);
        assert_eq!(inner.before, (true, true));
        let none = Tf32::allow(false, false);
        assert_eq!(none.before, (true, false), "convolutions alone");
        drop(none);
        drop(inner);
        assert_eq!(set_tf32((true, true)), (true, true));
        let before = outer.before;
        drop(outer);
        assert_eq!(set_tf32(before), before);
    }

    #[test]
    fn the_instructions_of_this_processor_have_a_name() {
        let name = instructions(Device::Cpu);
        assert!(name.contains("AVX") || name.contains("DEFAULT") || name.contains("SVE"), "{name}");
        assert_eq!(name.ends_with("with bfloat16"), fast_bfloat16(), "{name}");
    }
}
