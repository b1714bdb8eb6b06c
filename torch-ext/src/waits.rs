//! Work that may not wait for a GPU: libtorch's own debug mode, in which operations that would wait are errors.

use std::ffi::{c_char, c_int};

use crate::answer::check;

unsafe extern "C" {
    fn iad_set_sync_debug(mode: c_int, before: *mut c_int) -> *mut c_char;
}

/// `c10::cuda::SyncDebugMode::L_ERROR`.
const ERROR: c_int = 2;

/// Puts the mode back, also when work panics.
struct Restore(c_int);

impl Drop for Restore {
    fn drop(&mut self) {
        // It was there to be set before; nothing is left to say it to if it is gone.
        let _ = set(self.0);
    }
}

/// What `work` returns, in which every operation of libtorch that waits for a GPU is an error: on this thread and on those of
/// backward passes. Events that are waited for by name ([`Moment::wait`](crate::Moment::wait)) are not such operations.
///
/// # Errors
/// Where libtorch's CUDA half is not loaded; then `work` is not done.
pub fn without_waits<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let _restore = Restore(set(ERROR)?);
    Ok(work())
}

fn set(mode: c_int) -> Result<c_int, String> {
    let mut before = 0;
    // SAFETY: a place for one number, which the C++ side fills where it answers null.
    check(unsafe { iad_set_sync_debug(mode, &mut before) })?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// trainer/tests/gpu/ sees what it does where the CUDA half is loaded.
    #[test]
    fn without_the_cuda_half_nothing_is_done() {
        let mut done = false;
        assert!(without_waits(|| done = true).is_err_and(|message| message.contains("not loaded")));
        assert!(!done);
    }
}
