//! The device of each rank, and the transport of their tensors.

mod assign;
mod found;
mod places;
mod plural;
mod sharing;

use tch::Device;

pub(crate) use self::assign::{Plan, assign};
pub(crate) use self::found::Found;
pub(crate) use self::places::{map, places};
pub(crate) use self::sharing::sharing_variables;

/// The device in libtorch's words. With `on_host` the GPUs are those of a stand-in, and tensors live on the CPU.
pub(crate) fn device(gpu: Option<usize>, on_host: bool) -> Device {
    gpu.filter(|_| !on_host).map_or(Device::Cpu, Device::Cuda)
}

#[cfg(test)]
mod tests;
