//! Functions of our own in libtorch's graph: the result is known, and a Rust function gives the gradients.

use std::ffi::{c_char, c_void};

use tch::{Tensor, no_grad};

use crate::answer::{RawTensor, check};

/// Takes the gradient of the result and the saved tensors, and whether the gradient of each input is wanted; answers that
/// gradient of each input, in order.
type Backward = Box<dyn Fn(&Tensor, &[Tensor], &[bool]) -> Vec<Option<Tensor>> + Send + Sync>;

unsafe extern "C" {
    fn iad_with_backward(
        result: *mut RawTensor,
        inputs: *const RawTensor,
        input_count: usize,
        saved: *const RawTensor,
        saved_count: usize,
        context: *mut c_void,
        call: extern "C" fn(*mut c_void, RawTensor, *const RawTensor, usize, *const bool, *mut RawTensor, usize),
        drop: extern "C" fn(*mut c_void),
    ) -> *mut c_char;
}

/// `result`, computed from `inputs` without a graph, as a function of theirs that can be differentiated once. `backward` gives
/// the gradients, without a graph, from that of the result and the `saved` tensors, of which the result may be one. They are
/// freed with the pass, and may not be changed before it.
///
/// # Panics
/// A result that has a graph already, as every tch operation does. A panic of `backward` ends the process.
pub(crate) fn with_backward(
    result: Tensor,
    inputs: &[&Tensor],
    saved: &[&Tensor],
    backward: impl Fn(&Tensor, &[Tensor], &[bool]) -> Vec<Option<Tensor>> + Send + Sync + 'static,
) -> Tensor {
    let raw = |tensors: &[&Tensor]| tensors.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect::<Vec<_>>();
    let (inputs, saved) = (raw(inputs), raw(saved));
    let context: *mut Backward = Box::into_raw(Box::new(Box::new(backward)));
    let mut place = result.as_ptr().cast_mut();
    // SAFETY: all tensors live through the call; `place` names the result and takes the answer; `context` is a Box that the C++
    // side hands to `call_backward` until it gives it to `drop_backward` once.
    let answer = check(unsafe {
        iad_with_backward(
            &mut place,
            inputs.as_ptr(),
            inputs.len(),
            saved.as_ptr(),
            saved.len(),
            context.cast(),
            call_backward,
            drop_backward,
        )
    });
    answer.unwrap_or_else(|message| panic!("a function with a backward pass of its own: {message}"));
    // SAFETY: the C++ side put a tensor made by `new` there, whose ownership passes to tch.
    unsafe { Tensor::from_ptr(place) }
}

extern "C" fn call_backward(
    context: *mut c_void,
    gradient: RawTensor,
    saved: *const RawTensor,
    saved_count: usize,
    wanted: *const bool,
    gradients: *mut RawTensor,
    input_count: usize,
) {
    // SAFETY: `context` is the Box of `with_backward`, alive until `drop_backward`; it is only read.
    let backward = unsafe { &*context.cast::<Backward>() };
    // SAFETY: live tensors of the C++ side, in arrays of the stated lengths; the clones are second handles to the same values.
    let (gradient, saved, wanted) = unsafe {
        let saved = std::slice::from_raw_parts(saved, saved_count);
        let saved: Vec<_> = saved.iter().map(|&raw| Tensor::clone_from_ptr(raw)).collect();
        (Tensor::clone_from_ptr(gradient), saved, std::slice::from_raw_parts(wanted, input_count))
    };
    let found = no_grad(|| backward(&gradient, &saved, wanted));
    assert_eq!(found.len(), input_count, "a backward pass gives a gradient of each input");
    // SAFETY: an array of as many places as there are inputs, each of them null.
    let places = unsafe { std::slice::from_raw_parts_mut(gradients, input_count) };
    for (place, gradient) in places.iter_mut().zip(found) {
        // The C++ side takes the tensor over.
        *place = gradient.map_or(std::ptr::null_mut(), |gradient| {
            let raw = gradient.as_ptr().cast_mut();
            std::mem::forget(gradient);
            raw
        });
    }
}

extern "C" fn drop_backward(context: *mut c_void) {
    // SAFETY: called once, with the pointer that `Box::into_raw` gave.
    drop(unsafe { Box::from_raw(context.cast::<Backward>()) });
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tch::Kind;

    use super::*;

    /// x^2 y, with gradients written by hand; notes which of them were wanted.
    fn product(x: &Tensor, y: &Tensor, asked: &Arc<Mutex<Vec<Vec<bool>>>>) -> Tensor {
        let result = no_grad(|| x.square() * y);
        let notes = Arc::clone(asked);
        let saved = [x, y, &result.shallow_clone()];
        with_backward(result, &[x, y], &saved, move |gradient, saved, wanted| {
            notes.lock().unwrap().push(wanted.to_vec());
            assert_eq!(saved[2], saved[0].square() * &saved[1]);
            vec![
                wanted[0].then(|| gradient * &saved[0] * &saved[1] * 2.0),
                wanted[1].then(|| gradient * saved[0].square()),
            ]
        })
    }

    fn leaf(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    #[test]
    fn a_function_with_its_own_backward_pass_takes_part_in_the_graph() {
        let (asked, x, y) = (Arc::default(), leaf(&[1.0, 2.0]), leaf(&[3.0, 5.0]));
        (product(&x, &y, &asked) * 2.0).sum(Kind::Double).backward();
        assert_eq!(x.grad(), Tensor::from_slice(&[12.0, 40.0]));
        assert_eq!(y.grad(), Tensor::from_slice(&[2.0, 8.0]));
        // Only what is asked for is computed, as in an attack.
        let gradient = Tensor::run_backward(&[product(&x, &y, &asked).sum(Kind::Double)], &[&x], false, false);
        assert_eq!(gradient[0], Tensor::from_slice(&[6.0, 20.0]));
        assert_eq!(*asked.lock().unwrap(), [vec![true, true], vec![true, false]]);
        assert!(!no_grad(|| product(&x, &y, &asked)).requires_grad());
    }

    #[test]
    fn what_a_function_holds_is_dropped_with_its_graph() {
        let (asked, x, y) = (Arc::default(), leaf(&[1.0]), leaf(&[3.0]));
        drop(product(&x, &y, &asked));
        product(&x, &y, &asked).backward();
        assert_eq!(Arc::strong_count(&asked), 1);
    }

    #[test]
    fn a_second_derivative_is_refused() {
        let (asked, x, y) = (Arc::default(), leaf(&[1.0]), leaf(&[3.0]));
        let result = product(&x, &y, &asked);
        assert!(Tensor::f_run_backward(&[result], &[&x], true, true).is_err());
    }
}
