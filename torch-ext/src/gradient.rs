//! Where backward passes put the gradients of parameters, and what they call when a gradient is complete.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

use crate::answer::{RawTensor, check};

unsafe extern "C" {
    fn iad_set_gradient(parameter: RawTensor, gradient: RawTensor) -> *mut c_char;
    fn iad_on_gradient(
        parameter: RawTensor,
        context: *mut c_void,
        call: extern "C" fn(*mut c_void),
        drop: extern "C" fn(*mut c_void),
    ) -> *mut c_char;
}

/// Makes `gradient` the tensor into which backward passes add the gradient of `parameter` (same shape and type).
///
/// # Errors
/// libtorch's message when shape, type or device differ.
pub fn set_gradient(parameter: &Tensor, gradient: &Tensor) -> Result<(), String> {
    // SAFETY: both pointers are live tensors; the C++ side copies the handle and keeps no pointer.
    check(unsafe { iad_set_gradient(parameter.as_ptr().cast_mut(), gradient.as_ptr().cast_mut()) })
}

/// What to do when a gradient is complete.
type Ready = Box<dyn Fn() + Send + Sync>;

/// Calls `ready` whenever a backward pass has added up its whole gradient of `parameter`: once for each pass, however many
/// forward passes used the parameter, and never for passes that ask for other gradients alone or give this one nothing. The
/// call comes from the thread of the backward pass, which goes on after it. A second call replaces the first.
///
/// A panic of `ready` ends there; whoever has to know of it keeps it in mind, as a poisoned mutex does.
///
/// # Errors
/// A tensor that is not a leaf with a gradient.
pub fn on_gradient(parameter: &Tensor, ready: impl Fn() + Send + Sync + 'static) -> Result<(), String> {
    let context: *mut Ready = Box::into_raw(Box::new(Box::new(ready)));
    // SAFETY: the parameter lives through the call; `context` is a Box that the C++ side hands to `call_ready` until it gives it
    // to `drop_ready` once, also where it answers an error.
    check(unsafe { iad_on_gradient(parameter.as_ptr().cast_mut(), context.cast(), call_ready, drop_ready) })
}

extern "C" fn call_ready(context: *mut c_void) {
    // SAFETY: `context` is the Box of `on_gradient`, alive until `drop_ready`; it is only read.
    let ready = unsafe { &*context.cast::<Ready>() };
    // The frames below are C++.
    let _ = catch_unwind(AssertUnwindSafe(ready));
}

extern "C" fn drop_ready(context: *mut c_void) {
    // SAFETY: called once, with the pointer that `Box::into_raw` gave.
    drop(unsafe { Box::from_raw(context.cast::<Ready>()) });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use tch::{Kind, no_grad};

    use super::*;

    /// A parameter that counts the calls of its hook.
    fn counted() -> (Tensor, Arc<AtomicUsize>) {
        let parameter = Tensor::ones([3], tch::kind::FLOAT_CPU).set_requires_grad(true);
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let count = move || {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        on_gradient(&parameter, count).unwrap();
        (parameter, calls)
    }

    #[test]
    fn a_gradient_that_is_there_is_told_once_for_each_backward_pass() {
        let (parameter, calls) = counted();
        let called = || calls.load(Ordering::Relaxed);
        // Two uses, one pass; the gradient is whole when the hook is called.
        ((&parameter * 2.0).sum(Kind::Float) + (&parameter * 3.0).sum(Kind::Float)).backward();
        assert_eq!(called(), 1);
        (&parameter * 2.0).sum(Kind::Float).backward();
        assert_eq!(called(), 2);
        // An attack: the gradient of the images alone.
        let images = Tensor::ones([3], tch::kind::FLOAT_CPU).set_requires_grad(true);
        let loss = (&images * &parameter).sum(Kind::Float);
        Tensor::run_backward(&[loss], &[&images], false, false);
        assert_eq!(called(), 2);
        // A pass that does not reach the parameter.
        (&images * 2.0).sum(Kind::Float).backward();
        assert_eq!(called(), 2);
        on_gradient(&parameter, || {}).unwrap();
        assert_eq!(Arc::strong_count(&calls), 1, "the first hook is not dropped");
        drop(parameter);
        assert!(on_gradient(&Tensor::ones([3], tch::kind::FLOAT_CPU), || {}).is_err());
    }

    #[test]
    fn a_panic_of_a_hook_stays_in_it() {
        let parameter = Tensor::ones([3], tch::kind::FLOAT_CPU).set_requires_grad(true);
        let state = Arc::new(Mutex::new(0));
        let hooks = Arc::clone(&state);
        on_gradient(&parameter, move || {
            let _held = hooks.lock();
            panic!("as a test wants it");
        })
        .unwrap();
        (&parameter * 2.0).sum(Kind::Float).backward();
        assert!(state.is_poisoned());
        assert_eq!(f64::try_from(parameter.grad().sum(Kind::Double)).unwrap(), 6.0);
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
