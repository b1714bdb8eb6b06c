//! The stream on which collectives are queued beside libtorch's, and the events that order the two.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use cudarc::driver::result::{ctx, device, event, primary_ctx, stream};
use cudarc::driver::sys;
use tch::Device;

/// The stream of the collectives of one GPU, joined to libtorch's by events.
pub(crate) struct Streams {
    context: sys::CUcontext,
    collectives: sys::CUstream,
    tensors: Device,
    events: Arc<Pool>,
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
        let mut streams = Self { context, collectives: ptr::null_mut(), tensors, events: Arc::default() };
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
        let event = Event::after(self.torch()?, &self.events)?;
        // SAFETY: stream and event live; a stream waits for the record made before this call, also if the event is recorded anew.
        Ok(unsafe { stream::wait_event(self.collectives, event.raw, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }?)
    }

    /// An event after the collectives queued so far.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn mark(&self) -> Result<Event> {
        Event::after(self.collectives, &self.events)
    }

    /// Orders what libtorch queues from here on after `event`.
    ///
    /// # Errors
    /// The driver's, or libtorch's.
    pub(crate) fn torch_waits(&self, event: &Event) -> Result<()> {
        let torch = self.torch()?;
        // SAFETY: as in `collectives_wait`.
        Ok(unsafe { stream::wait_event(torch, event.raw, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }?)
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

/// Events that nobody uses, to be recorded again: creating one costs more than recording it.
#[derive(Default)]
struct Pool(Mutex<Vec<RawEvent>>);

struct RawEvent(sys::CUevent);

// SAFETY: a handle of the driver, which may be used from any thread.
unsafe impl Send for RawEvent {}

impl Pool {
    fn free(&self) -> MutexGuard<'_, Vec<RawEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<RawEvent> {
        if let Some(event) = self.free().pop() {
            return Ok(event);
        }
        Ok(RawEvent(event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?))
    }
}

/// A point in the work of a stream. Its drop gives the driver's event back to the pool.
pub(crate) struct Event {
    raw: sys::CUevent,
    pool: Arc<Pool>,
}

// SAFETY: a handle of the driver, which may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    fn after(stream: sys::CUstream, pool: &Arc<Pool>) -> Result<Self> {
        let event = Self { raw: pool.take()?.0, pool: Arc::clone(pool) };
        // SAFETY: both live.
        unsafe { event::record(event.raw, stream) }?;
        Ok(event)
    }

    /// Whether the GPU has passed it.
    ///
    /// # Errors
    /// That of any work of the GPU before it.
    pub(crate) fn is_past(&self) -> Result<bool> {
        // SAFETY: the event lives.
        match unsafe { event::query(self.raw) } {
            Ok(()) => Ok(true),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.pool.free().push(RawEvent(self.raw));
    }
}
