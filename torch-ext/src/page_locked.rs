//! Copies in page-locked memory of the host, from which a GPU copies while the host continues.

use std::ffi::c_char;

use tch::Tensor;

use crate::answer::{RawTensor, check};

unsafe extern "C" {
    fn iad_page_locked(tensor: RawTensor, copy: *mut RawTensor) -> *mut c_char;
}

/// A copy of `tensor`, which is in the host's memory, in page-locked memory. tch's own `pin_memory` passes an argument that
/// libtorch 2.11 deprecates with two lines on stderr for each call.
///
/// # Errors
/// libtorch's message where its CUDA half is not loaded, there is no GPU, or no memory can be locked.
pub fn page_locked(tensor: &Tensor) -> Result<Tensor, String> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: a live tensor, which the C++ side only reads, and a place for one pointer, which it fills where it answers null.
    check(unsafe { iad_page_locked(tensor.as_ptr().cast_mut(), &mut copy) })?;
    // SAFETY: the C++ side made the tensor by `new`; its ownership passes to tch.
    Ok(unsafe { Tensor::from_ptr(copy) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// trainer/tests/gpu/ copies from such memory where there is a GPU.
    #[test]
    fn a_machine_without_a_gpu_has_no_page_locked_memory() {
        let tensor = Tensor::from_slice(&[1u8, 2, 3]);
        match page_locked(&tensor) {
            Ok(copy) => assert!(tch::Cuda::is_available() && copy.equal(&tensor)),
            Err(message) => assert!(!tch::Cuda::is_available() && !message.is_empty()),
        }
    }
}
