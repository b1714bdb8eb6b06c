//! The one way of a step's numbers from the device to the host: they leave behind the work that makes them, and whoever takes
//! them waits for that work alone, not for what was queued since.

use std::cell::Cell;

use anyhow::{Error, Result};
use tch::{Device, Kind, Tensor};
use torch_ext::Moment;

thread_local! {
    static WAITS: Cell<u64> = const { Cell::new(0) };
}

/// Numbers on their way to the host.
pub struct Reading {
    /// On the host, in page-locked memory where they come from a GPU; theirs from `arrived` on.
    values: Tensor,
    arrived: Moment,
}

/// Sends the values of `tensor` as they are behind the work queued so far, as float64. The caller goes on meanwhile.
///
/// # Errors
/// libtorch's error of the device.
pub fn send(tensor: &Tensor) -> Result<Reading> {
    // Values change their type where they are: on the host it would be done before they are there.
    let values = tensor.to_kind(Kind::Double).flatten(0, -1).contiguous();
    let values = values.to_device_(Device::Cpu, Kind::Double, true, true);
    Ok(Reading { values, arrived: Moment::now(tensor.device()).map_err(Error::msg)? })
}

impl Reading {
    /// Waits for the values.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub fn take(self) -> Result<Vec<f64>> {
        WAITS.set(waits() + 1);
        self.arrived.wait().map_err(Error::msg)?;
        Ok(Vec::try_from(self.values)?)
    }
}

/// The values of `tensor`, as float64.
///
/// # Errors
/// libtorch's error of the device.
pub fn read(tensor: &Tensor) -> Result<Vec<f64>> {
    send(tensor)?.take()
}

/// How often this thread has waited for a device in [`Reading::take`].
pub fn waits() -> u64 {
    WAITS.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_moment_they_were_sent() {
        let mut tensor = Tensor::from_slice(&[0.5f64, -1.0, f64::INFINITY, 1e-300]).view([2, 2]);
        let reading = send(&tensor.transpose(0, 1)).unwrap();
        let before = waits();
        let _ = tensor.zero_();
        assert_eq!(waits(), before);
        assert_eq!(reading.take().unwrap(), [0.5, f64::INFINITY, -1.0, 1e-300]);
        assert_eq!(waits(), before + 1);
        assert_eq!(read(&Tensor::from_slice(&[3i64, 1 << 40])).unwrap(), [3.0, (1u64 << 40) as f64]);
        assert_eq!(read(&Tensor::from_slice(&[true, false])).unwrap(), [1.0, 0.0]);
    }
}
