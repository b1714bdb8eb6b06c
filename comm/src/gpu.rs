//! The identity of the GPUs that the CUDA driver shows.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use anyhow::{Context, Result, anyhow, bail, ensure};
use cudarc::driver::result::{device, init};
use cudarc::driver::sys;
use serde::{Deserialize, Serialize};

/// A GPU, independent of the number that a process gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    /// The product.
    pub(crate) name: String,
    /// `GPU-...`; of its own for every part of a divided GPU.
    pub(crate) uuid: String,
    /// Its place in this machine, as in `0000:3b:00.0`.
    pub(crate) pci: String,
    /// The memory node it is attached to, where the kernel says so.
    pub(crate) numa: Option<usize>,
}

/// The GPUs that the driver shows this process, in the order of their numbers, which are libtorch's too.
///
/// # Errors
/// The driver's library is missing or fails.
pub(crate) fn all() -> Result<Vec<Gpu>> {
    // SAFETY: opens and closes libraries that are meant to be opened so; asked first because cudarc panics without them.
    ensure!(unsafe { sys::is_culib_present() }, "libcuda.so.1, the library of NVIDIA's driver, does not load");
    match init() {
        Ok(()) => {}
        // cudarc tries libcuda.so before libcuda.so.1.
        Err(error) if error.0 == sys::CUresult::CUDA_ERROR_STUB_LIBRARY => bail!(
            "libcuda.so is the stub that CUDA's toolkit brings for linking; take its `stubs` folder off LD_LIBRARY_PATH"
        ),
        Err(error) => return Err(anyhow!(error).context("starting the CUDA driver")),
    }
    (0..device::get_count()?).map(|number| one(number).with_context(|| format!("asking GPU {number}"))).collect()
}

/// The CUDA version that the driver supports, as in 13000 for 13.0; none where the driver's library does not load.
pub(crate) fn cuda_of_driver() -> Option<i32> {
    let mut version = 0;
    // SAFETY: asked first because cudarc panics without the library; then a live place for one number.
    let code = unsafe {
        if !sys::is_culib_present() {
            return None;
        }
        sys::cuDriverGetVersion(&mut version)
    };
    code.result().ok().map(|()| version)
}

fn one(number: i32) -> Result<Gpu> {
    let device = device::get(number)?;
    let mut pci: [c_char; 32] = [0; 32];
    // SAFETY: the driver writes at most the stated number of bytes, the last of them NUL.
    unsafe { sys::cuDeviceGetPCIBusId(pci.as_mut_ptr(), pci.len() as i32, device) }.result()?;
    // SAFETY: as above.
    let pci = unsafe { CStr::from_ptr(pci.as_ptr()) }.to_string_lossy().to_lowercase();
    let bytes = device::get_uuid(device)?.bytes.map(|byte| byte as u8);
    let numa = std::fs::read_to_string(format!("/sys/bus/pci/devices/{pci}/numa_node")).ok();
    Ok(Gpu {
        name: device::get_name(device)?,
        uuid: uuid_text(&bytes),
        pci,
        // The kernel writes -1 on machines with one memory node, which is no number of a node.
        numa: numa.and_then(|text| text.trim().parse().ok()),
    })
}

/// `GPU-` and five groups of hexadecimal digits, as nvidia-smi prints it.
fn uuid_text(bytes: &[u8; 16]) -> String {
    let digits = base16ct::lower::encode_string(bytes);
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    format!("GPU-{}", groups.join("-"))
}

#[cfg(test)]
mod tests {
    use super::uuid_text;

    #[test]
    fn a_uuid_reads_as_in_nvidia_smi() {
        let bytes = [0x5a, 0x0b, 0xc1, 0xd2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255];
        assert_eq!(uuid_text(&bytes), "GPU-5a0bc1d2-0102-0304-0506-0708090a0bff");
    }
}
