//! The one way of a step's numbers, and of copies of a run's state, from the device to the host. The copy is queued behind
//! the work that makes the numbers, and a reader waits for this copy only, not for later work.

use std::cell::Cell;
use std::collections::BTreeMap;

use anyhow::{Error, Result};
use tch::{Device, Kind, Tensor};
use torch_ext::Moment;

thread_local! {
    static WAITS: Cell<u64> = const { Cell::new(0) };
}

/// Numbers on their way to the host.
pub struct Reading {
    /// The numbers on the host, from `arrived` on; in page-locked memory if they come from a GPU.
    values: Tensor,
    arrived: Moment,
}

/// Queues a copy of `tensor` behind the current work, as float64. The caller does not wait.
///
/// # Errors
/// libtorch's error of the device.
pub fn send(tensor: &Tensor) -> Result<Reading> {
    // Cast on the device: a cast on the host would run before the asynchronous copy has finished.
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

/// Copies of tensors on their way to the host.
pub struct Copies {
    tensors: BTreeMap<String, Tensor>,
    arrived: Moment,
}

impl Copies {
    /// Copies `tensors` as they are now; they may change at once. From a GPU the copies are queued, into page-locked memory, and
    /// the caller does not wait.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub fn of(tensors: &BTreeMap<String, Tensor>) -> Result<Self> {
        let device = tensors.values().next().map_or(Device::Cpu, Tensor::device);
        let copies = tensors.iter().map(|(name, tensor)| (name.clone(), copy_to_host(&tensor.detach()))).collect();
        Ok(Self { tensors: copies, arrived: Moment::now(device).map_err(Error::msg)? })
    }

    /// Waits for the copies, on any thread.
    ///
    /// # Errors
    /// libtorch's error of the device.
    pub fn wait(&self) -> Result<&BTreeMap<String, Tensor>> {
        self.arrived.wait().map_err(Error::msg)?;
        Ok(&self.tensors)
    }
}

/// A copy that is contiguous, so that nothing is left to compute for its reader.
fn copy_to_host(tensor: &Tensor) -> Tensor {
    if tensor.device() == Device::Cpu && !tensor.is_contiguous() {
        return tensor.contiguous();
    }
    tensor.contiguous().to_device_(Device::Cpu, tensor.kind(), true, true)
}

/// A copy on `device`. A GPU copies from page-locked memory while the host continues; libtorch keeps that memory until
/// the copy is done.
pub(crate) fn on_device(host: &Tensor, device: Device) -> Tensor {
    if device.is_cuda() {
        let locked = torch_ext::page_locked(host).unwrap_or_else(|message| panic!("page-locked memory: {message}"));
        locked.to_device_(device, host.kind(), true, false)
    } else {
        host.to_device(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_contiguous_and_of_the_moment_they_were_made() {
        let flat = Tensor::arange(12, tch::kind::FLOAT_CPU);
        let tensors = BTreeMap::from([
            ("all".to_string(), flat.shallow_clone()),
            ("part".to_string(), flat.narrow(0, 4, 4).view([2, 2])),
            ("turned".to_string(), flat.view([3, 4]).transpose(0, 1)),
        ]);
        let before: Vec<Vec<f64>> = tensors.values().map(|tensor| read(tensor).unwrap()).collect();
        let copies = Copies::of(&tensors).unwrap();
        let _ = flat.shallow_clone().zero_();
        let copies = std::thread::spawn(move || {
            let copies = copies.wait().unwrap();
            assert!(copies.values().all(Tensor::is_contiguous));
            copies.values().map(|tensor| read(tensor).unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(copies.join().unwrap(), before);
        assert_eq!(read(&tensors["all"]).unwrap(), [0.0; 12]);
    }

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
