//! The streams on which collectives are queued beside libtorch's, and the events that order them. Where libtorch's stream is
//! captured, the events carry the capture into the others and back.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow};
use cudarc::driver::result::{ctx, device, event, primary_ctx, stream};
use cudarc::driver::sys;
use tch::Device;

/// The streams of the collectives of one GPU, joined to libtorch's by events.
pub(crate) struct Streams {
    context: sys::CUcontext,
    collectives: Vec<sys::CUstream>,
    tensors: Device,
    /// Stands in the place of libtorch's stream where tensors are the host's and a graph is captured.
    in_place: Mutex<InPlace>,
    events: Arc<Pool>,
}

struct InPlace {
    /// Null before its first use.
    stream: sys::CUstream,
    is_used: bool,
}

// SAFETY: all are handles of the driver, which may be used from any thread; they are never destroyed.
unsafe impl Send for Streams {}
// SAFETY: as above.
unsafe impl Sync for Streams {}

impl Streams {
    /// Opens `count` streams on GPU `number`, ahead of libtorch's in priority, for tensors that live on `tensors`.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn open(number: usize, tensors: Device, count: usize) -> Result<Self> {
        let device = device::get(i32::try_from(number)?)?;
        // SAFETY: `device` comes from the driver. The context is libtorch's own, the primary one, and is never released.
        let context = unsafe { primary_ctx::retain(device) }.with_context(|| format!("using GPU {number}"))?;
        let in_place = Mutex::new(InPlace { stream: ptr::null_mut(), is_used: false });
        let mut streams = Self { context, collectives: vec![], tensors, in_place, events: Arc::default() };
        streams.enter()?;
        let (_, highest) = stream::get_priority_range()?;
        for _ in 0..count {
            streams.collectives.push(stream::create_with_priority(stream::StreamKind::NonBlocking, highest)?);
        }
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

    /// The stream of the collectives of a lane.
    pub(crate) fn collectives(&self, lane: usize) -> sys::CUstream {
        self.collectives[lane]
    }

    /// Orders what is queued for collectives of a lane from here on after what libtorch has queued so far.
    ///
    /// # Errors
    /// The driver's, or libtorch's.
    pub(crate) fn collectives_wait(&self, lane: usize) -> Result<()> {
        let event = Event::after(self.torch()?, &self.events)?;
        let lane = self.collectives[lane];
        // SAFETY: stream and event live; a stream waits for the record made before this call, also if the event is recorded anew.
        Ok(unsafe { stream::wait_event(lane, event.raw, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) }?)
    }

    /// An event after the collectives of a lane that are queued so far.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn mark(&self, lane: usize) -> Result<Event> {
        Event::after(self.collectives[lane], &self.events)
    }

    /// An event after what is queued so far on `stream`, which lives.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn mark_on(&self, stream: sys::CUstream) -> Result<Event> {
        Event::after(stream, &self.events)
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
    /// at once, as if on the default stream, which cannot be captured.
    ///
    /// # Errors
    /// libtorch's.
    pub(crate) fn torch(&self) -> Result<sys::CUstream> {
        match self.tensors {
            Device::Cuda(gpu) => Ok(torch_ext::current_stream(gpu).map_err(|message| anyhow!(message))?.cast()),
            _ => {
                let in_place = self.in_place.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(if in_place.is_used { in_place.stream } else { ptr::null_mut() })
            }
        }
    }

    /// Takes a stream that can be captured in the place of the default one, for tensors of the host; or the default one again.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn be_captured(&self, is_used: bool) -> Result<()> {
        let mut in_place = self.in_place.lock().unwrap_or_else(PoisonError::into_inner);
        if is_used && in_place.stream.is_null() && !self.tensors.is_cuda() {
            in_place.stream = stream::create_with_priority(stream::StreamKind::NonBlocking, 0)?;
        }
        in_place.is_used = is_used;
        Ok(())
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
