//! The answers of the C++ side.

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    fn iad_free(message: *mut c_char);
}

/// A tensor as the C++ side names it.
pub(crate) type RawTensor = *mut torch_sys::C_tensor;

/// Turns the answer of the C++ side (null or a message) into a `Result`.
pub(crate) fn check(message: *mut c_char) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the C++ side answers null or a NUL-terminated string from malloc that nobody else holds.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above; it is freed once, after its last use.
    unsafe { iad_free(message) };
    Err(text)
}
