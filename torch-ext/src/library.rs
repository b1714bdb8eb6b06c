//! libtorch as a whole: its version, its CUDA half, its allocator and its global settings.

use std::ffi::{CStr, c_char};

use crate::answer::check;

unsafe extern "C" {
    fn iad_version() -> *const c_char;
    fn iad_load_cuda() -> *mut c_char;
    fn iad_cuda_version(version: *mut i64) -> *mut c_char;
    fn iad_keep_memory();
    fn iad_exact_arithmetic() -> *mut c_char;
}

/// Loads libtorch's CUDA half; must come before any other question about CUDA, whose answer libtorch remembers.
///
/// # Errors
/// The loader's message where the library or what it needs is missing, as on machines without GPUs.
pub fn load_cuda() -> Result<(), String> {
    // SAFETY: takes nothing; runs the library's initialisers, which libtorch means to be loaded this way.
    check(unsafe { iad_load_cuda() })
}

/// The CUDA that libtorch was built for, as in 13000 for 13.0; none before [`load_cuda`].
pub fn cuda_version() -> Option<i32> {
    let mut version = 0;
    // SAFETY: a place for one number, which the C++ side fills where it answers null.
    check(unsafe { iad_cuda_version(&mut version) }).ok()?;
    i32::try_from(version).ok().filter(|version| *version > 0)
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
    // SAFETY: answers a string constant.
    unsafe { CStr::from_ptr(iad_version()) }.to_string_lossy().into_owned()
}
