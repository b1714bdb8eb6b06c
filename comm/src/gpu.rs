//! GPUs as the CUDA driver knows them: who they are, and the stream on which collectives are queued beside libtorch's.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::ptr;

use anyhow::{Context, Result, anyhow, ensure};
use cudarc::driver::result::{ctx, device, event, init, primary_ctx, stream};
use cudarc::driver::sys;
use serde::{Deserialize, Serialize};
use tch::Device;

/// A GPU, whatever number a process gives it.
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
    init().context("starting the CUDA driver")?;
    (0..device::get_count()?).map(|number| one(number).with_context(|| format!("asking GPU {number}"))).collect()
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
        // The kernel says -1 where there is one memory for all.
        numa: numa.and_then(|text| text.trim().parse().ok()),
    })
}

/// `GPU-` and five groups of hexadecimal digits, as nvidia-smi prints it.
fn uuid_text(bytes: &[u8; 16]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let groups = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    format!("GPU-{}", groups.join("-"))
}

/// The stream of the collectives of one GPU, joined to libtorch's by events.
pub(crate) struct Streams {
    context: sys::CUcontext,
    collectives: sys::CUstream,
    tensors: Device,
}

// SAFETY: both are handles of the driver, which may be used from any thread; they are never destroyed.
unsafe impl Send for Streams {}
// SAFETY: as above.
unsafe impl Sync for Streams {}

impl Streams {
    /// Opens a stream on GPU `number`, ahead of libtorch's in priority, for tensors that live on `tensors`.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn open(number: usize, tensors: Device) -> Result<Self> {
        let device = device::get(i32::try_from(number)?)?;
        // SAFETY: `device` comes from the driver. The context is libtorch's own, the primary one, and is never released.
        let context = unsafe { primary_ctx::retain(device) }.with_context(|| format!("using GPU {number}"))?;
        let mut streams = Self { context, collectives: ptr::null_mut(), tensors };
        streams.enter()?;
        let (_, highest) = stream::get_priority_range()?;
        streams.collectives = stream::create_with_priority(stream::StreamKind::NonBlocking, highest)?;
        Ok(streams)
    }

    /// Makes the GPU that of the calling thread: a thread begins without one.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn enter(&self) -> Result<()> {
        // SAFETY: the context was retained and is never released.
        Ok(unsafe { ctx::set_current(self.context) }?)
    }

    /// Lets the calling thread ask for events while another captures a graph, which it would otherwise spoil.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn spare_captures() -> Result<()> {
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: `mode` is a live place, which the driver exchanges with the thread's own.
        Ok(unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }.result()?)
    }

    /// The stream of the collectives.
    pub(crate) fn collectives(&self) -> sys::CUstream {
        self.collectives
    }

    /// Orders what is queued for collectives from here on after what libtorch has queued so far.
    ///
    /// # Errors
    /// The driver's, or libtorch's.
    pub(crate) fn collectives_wait(&self) -> Result<()> {
        let event = Event::after(self.torch()?)?;
        // SAFETY: stream and event live; the driver keeps what it needs of an event that is destroyed before it is reached.
        Ok(unsafe { stream::wait_event(self.collectives, event.0, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }?)
    }

    /// An event after the collectives queued so far.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn mark(&self) -> Result<Event> {
        Event::after(self.collectives)
    }

    /// Orders what libtorch queues from here on after `event`.
    ///
    /// # Errors
    /// The driver's, or libtorch's.
    pub(crate) fn torch_waits(&self, event: &Event) -> Result<()> {
        let torch = self.torch()?;
        // SAFETY: as in `collectives_wait`.
        Ok(unsafe { stream::wait_event(torch, event.0, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }?)
    }

    /// libtorch's stream of the calling thread. Tensors of the host (in tests, with a stand-in for the driver) are computed
    /// at once, as if on the default stream.
    fn torch(&self) -> Result<sys::CUstream> {
        match self.tensors {
            Device::Cuda(gpu) => Ok(torch_ext::current_stream(gpu).map_err(|message| anyhow!(message))?.cast()),
            _ => Ok(ptr::null_mut()),
        }
    }
}

/// A point in the work of a stream.
pub(crate) struct Event(sys::CUevent);

// SAFETY: a handle of the driver, which may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    fn after(stream: sys::CUstream) -> Result<Self> {
        let event = Self(event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?);
        // SAFETY: both live.
        unsafe { event::record(event.0, stream) }?;
        Ok(event)
    }

    /// Whether the GPU has passed it.
    ///
    /// # Errors
    /// That of any work of the GPU before it.
    pub(crate) fn is_past(&self) -> Result<bool> {
        // SAFETY: the event lives.
        match unsafe { event::query(self.0) } {
            Ok(()) => Ok(true),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: destroyed once. An error here is that of earlier work, which others report.
        let _ = unsafe { event::destroy(self.0) };
    }
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
