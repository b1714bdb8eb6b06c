//! The one way of a step's numbers from the device to the host. Whoever takes it waits until the device has computed them.

use std::cell::Cell;

use anyhow::Result;
use tch::{Kind, Tensor};

thread_local! {
    static WAITS: Cell<u64> = const { Cell::new(0) };
}

/// The values of `tensor`, as float64.
///
/// # Errors
/// libtorch's error of the device.
pub fn read(tensor: &Tensor) -> Result<Vec<f64>> {
    WAITS.set(waits() + 1);
    Ok(Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1))?)
}

/// How often this thread has waited for a device in [`read`].
pub fn waits() -> u64 {
    WAITS.get()
}
