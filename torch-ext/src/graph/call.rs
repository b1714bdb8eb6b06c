//! Calls of the host as part of a recording of the CPU's operations.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

use crate::answer::{RawTensor, check};

unsafe extern "C" {
    fn iad_is_recording_operations() -> bool;
    fn iad_record_call(
        context: *mut c_void,
        call: extern "C" fn(*mut c_void, RawTensor) -> bool,
        drop: extern "C" fn(*mut c_void),
        tensor: RawTensor,
    ) -> *mut c_char;
}

/// What a replay calls.
type Work = Box<dyn Fn(Option<&Tensor>) -> Result<(), String>>;

thread_local! {
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Where this thread records the CPU's operations, adds a call of `work` to them and answers true: each replay makes it in its
/// place, with the `tensor` that operations before it have filled. Elsewhere does nothing and answers false; a graph of CUDA
/// records what is queued on its stream by itself.
///
/// # Errors
/// libtorch's message.
pub fn record_call(
    tensor: Option<&Tensor>,
    work: impl Fn(Option<&Tensor>) -> Result<(), String> + 'static,
) -> Result<bool, String> {
    // SAFETY: reads a flag of this thread.
    if !unsafe { iad_is_recording_operations() } {
        return Ok(false);
    }
    let context: *mut Work = Box::into_raw(Box::new(Box::new(work)));
    let tensor = tensor.map_or(std::ptr::null_mut(), |tensor| tensor.as_ptr().cast_mut());
    // SAFETY: the tensor lives through the call, and the C++ side keeps a handle of its own; `context` is a Box that it hands to
    // `call` until it gives it to `drop_work` once, also where it answers an error.
    check(unsafe { iad_record_call(context.cast(), call, drop_work, tensor) }).map(|()| true)
}

extern "C" fn call(context: *mut c_void, tensor: RawTensor) -> bool {
    // SAFETY: `context` is the Box of `record_call`, alive until `drop_work`; it is only read.
    let work = unsafe { &*context.cast::<Work>() };
    // SAFETY: null, or a live tensor of the C++ side; the clone is a second handle to the same values.
    let tensor = (!tensor.is_null()).then(|| unsafe { Tensor::clone_from_ptr(tensor) });
    // The frames below are C++.
    let done = catch_unwind(AssertUnwindSafe(|| work(tensor.as_ref())));
    let failure = done.unwrap_or_else(|panic| Err(words_of(panic.as_ref()))).err();
    let succeeded = failure.is_none();
    FAILURE.set(failure);
    succeeded
}

/// Why a call of the last replay failed, if one did.
pub(super) fn take_failure() -> Option<String> {
    FAILURE.take()
}

/// What a panic said.
pub(super) fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    words.unwrap_or("a panic without words").to_string()
}

extern "C" fn drop_work(context: *mut c_void) {
    // SAFETY: called once, with the pointer that `Box::into_raw` gave.
    drop(unsafe { Box::from_raw(context.cast::<Work>()) });
}
