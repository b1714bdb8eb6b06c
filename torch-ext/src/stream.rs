//! The stream on which libtorch queues work for a GPU.

use std::ffi::{c_char, c_int, c_void};

use crate::answer::check;

unsafe extern "C" {
    fn iad_current_stream(device: c_int, stream: *mut *mut c_void) -> *mut c_char;
}

/// The CUDA stream (a `CUstream`; null is the default one) on which libtorch queues the calling thread's work for this GPU.
///
/// # Errors
/// libtorch's message where its CUDA half is not loaded or has no such GPU.
pub fn current_stream(gpu: usize) -> Result<*mut c_void, String> {
    let device = c_int::try_from(gpu).map_err(|error| error.to_string())?;
    let mut stream = std::ptr::null_mut();
    // SAFETY: `stream` is a place for one pointer, which the C++ side fills or leaves.
    check(unsafe { iad_current_stream(device, &mut stream) })?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_gpu_has_no_stream() {
        assert!(tch::Cuda::is_available() || current_stream(0).is_err());
    }
}
