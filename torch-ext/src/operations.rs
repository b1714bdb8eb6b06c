//! Which operations of libtorch a piece of work calls.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_void};

use crate::answer::check;

unsafe extern "C" {
    fn iad_count_begin() -> *mut c_char;
    fn iad_count_end(context: *mut c_void, tell: extern "C" fn(*mut c_void, *const c_char, u64, u64));
}

/// How often an operation was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Called {
    /// The calls.
    pub times: u64,
    /// The tensors that all calls returned together.
    pub tensors: u64,
}

/// The operations of libtorch by name, as `aten::add`.
pub type Operations = BTreeMap<String, Called>;

/// Does `work` on the CPU and counts the operations below autograd that this thread and its backward passes call: what arrives at a
/// device. Operations that one of these is made of are not counted.
///
/// # Panics
/// Within a recording, or within itself.
pub fn count_operations<T>(work: impl FnOnce() -> T) -> (T, Operations) {
    // SAFETY: sets this thread's flag; an error leaves it as it was.
    check(unsafe { iad_count_begin() }).unwrap_or_else(|message| panic!("{message}"));
    let mut counting = Counting(Operations::new());
    let done = work();
    counting.end();
    (done, std::mem::take(&mut counting.0))
}

/// Ends the counting also where the work panics.
struct Counting(Operations);

impl Counting {
    fn end(&mut self) {
        // SAFETY: counting began on this thread and ends once; `tell` gets the map that lives here.
        unsafe { iad_count_end((&raw mut self.0).cast(), tell) }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.end();
        }
    }
}

extern "C" fn tell(context: *mut c_void, name: *const c_char, times: u64, tensors: u64) {
    // SAFETY: `context` is the map of `Counting::end`, which waits for this call.
    let found = unsafe { &mut *context.cast::<Operations>() };
    // SAFETY: a string of the C++ side that ends in NUL and lives through the call.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    found.insert(name, Called { times, tensors });
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn operations_below_autograd_are_counted_there_and_back() {
        let times = |times, tensors| Called { times, tensors };
        let image = Tensor::ones([2, 3, 8, 8], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let weight = Tensor::ones([4, 3, 3, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (output, ahead) = count_operations(|| image.conv2d(&weight, None::<Tensor>, 1, 1, 1, 1).relu());
        assert_eq!((ahead["aten::convolution"], ahead["aten::relu"]), (times(1, 1), times(1, 1)));
        let sum = output.sum(Kind::Float);
        let (_, back) = count_operations(|| Tensor::run_backward(&[&sum], &[&image], true, false));
        assert_eq!(back["aten::convolution_backward"], times(1, 1), "the gradient of the image alone");
        let (_, back) = count_operations(|| sum.backward());
        assert_eq!(back["aten::convolution_backward"], times(1, 2));
        assert_eq!(back["aten::threshold_backward"], times(1, 1));
        // Nothing is counted afterwards, nor after a panic.
        assert!(std::panic::catch_unwind(|| count_operations(|| panic!("on purpose"))).is_err());
        let (_, nothing) = count_operations(|| ());
        assert!(nothing.is_empty());
    }
}
