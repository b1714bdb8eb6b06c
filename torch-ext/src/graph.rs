//! Work that is recorded once and replayed: a CUDA graph, which a GPU is given as a whole instead of kernel by kernel.

mod call;

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Device;

pub use self::call::record_call;
use self::call::{take_failure, words_of};
use crate::answer::check;
use crate::moment::Moment;

/// An `iad::Graph` of the C++ side.
#[repr(C)]
struct RawGraph {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn iad_graph_new(cuda: bool, library: *const c_void, count: usize, graph: *mut *mut RawGraph) -> *mut c_char;
    fn iad_graph_begin(graph: *mut RawGraph) -> *mut c_char;
    fn iad_graph_end(graph: *mut RawGraph) -> *mut c_char;
    fn iad_graph_replay(graph: *mut RawGraph) -> *mut c_char;
    fn iad_graph_free(graph: *mut RawGraph);
    fn iad_grad_mode() -> bool;
    fn iad_set_grad_mode(enabled: bool);
    fn iad_own_stream(index: c_int, before: *mut i64) -> *mut c_char;
    fn iad_return_to_stream(index: c_int, stream: i64) -> *mut c_char;
}

/// The library that makes CUDA's graphs; empty where CUDA's headers were missing when this was built.
static CUDA_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libiad_cuda.so"));

thread_local! {
    static RECORDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread records a graph: a panic is caught then, and no moment can be taken.
pub fn is_recording() -> bool {
    RECORDS.get()
}

/// Recorded work of a device, with the memory that it reads and writes.
///
/// On a GPU it is a CUDA graph. On the CPU, for tests, every operation is called again with the arguments it had.
pub struct Graph(*mut RawGraph);

impl Graph {
    /// Records `work`, which must not wait for the device nor begin on memory that is freed before the replays; on a GPU this
    /// thread must be on a [`Queue`] of its own. Nothing is done until [`replay`](Self::replay), whose results lie in the
    /// tensors that `work` returned.
    ///
    /// # Errors
    /// Whatever is not possible in a recording, in the words of libtorch or of a panic in `work`. Nothing was done then, and
    /// the thread can go on.
    pub fn record<T>(device: Device, work: impl FnOnce() -> T) -> Result<(Self, T), String> {
        let mut raw = std::ptr::null_mut();
        let (library, count) = (CUDA_LIBRARY.as_ptr().cast(), CUDA_LIBRARY.len());
        // SAFETY: the library's bytes are constant; `raw` is a place for one pointer, filled where the C++ side answers null.
        check(unsafe { iad_graph_new(device.is_cuda(), library, count, &mut raw) })?;
        let graph = Self(raw);
        // SAFETY: reads a flag of this thread.
        let gradients = unsafe { iad_grad_mode() };
        // SAFETY: a live graph, and its first recording.
        check(unsafe { iad_graph_begin(graph.0) })?;
        RECORDS.set(true);
        let done = catch_unwind(AssertUnwindSafe(work));
        RECORDS.set(false);
        // SAFETY: the recording begun above ends once, on the same thread.
        let ended = check(unsafe { iad_graph_end(graph.0) });
        // SAFETY: sets a flag of this thread to what it was.
        unsafe { iad_set_grad_mode(gradients) };
        let done = done.map_err(|panic| words_of(panic.as_ref()))?;
        ended.map(|()| (graph, done))
    }

    /// Does the work once more, behind what is queued so far.
    ///
    /// # Errors
    /// libtorch's message.
    pub fn replay(&self) -> Result<(), String> {
        // SAFETY: a live graph that was recorded.
        let done = check(unsafe { iad_graph_replay(self.0) });
        done.map_err(|message| take_failure().unwrap_or(message))
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `iad_graph_new` and is freed here alone.
        unsafe { iad_graph_free(self.0) }
    }
}

/// A queue of a GPU that this thread's work goes to as long as this lives: the one that all threads share cannot be recorded.
pub struct Queue {
    device: Device,
    before: Option<i64>,
    /// It belongs to its thread.
    _thread: PhantomData<*const ()>,
}

impl Queue {
    /// A queue of its own, behind everything queued so far. A CPU has none, and needs none.
    ///
    /// # Errors
    /// libtorch's message.
    pub fn own(device: Device) -> Result<Self, String> {
        let mut before = None;
        if let Device::Cuda(index) = device {
            Moment::now(device)?.wait()?;
            let mut stream = 0;
            // SAFETY: a place for one number, filled where the C++ side answers null.
            check(unsafe { iad_own_stream(index as c_int, &mut stream) })?;
            before = Some(stream);
        }
        Ok(Self { device, before, _thread: PhantomData })
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        if let (Device::Cuda(index), Some(before)) = (self.device, self.before) {
            // What this thread does next may use what was computed here. An error of the device is told where it is used.
            let _ = Moment::now(self.device).and_then(|moment| moment.wait());
            // SAFETY: the number is that of the stream this thread was on.
            let _ = check(unsafe { iad_return_to_stream(index as c_int, before) });
        }
    }
}

#[cfg(test)]
mod tests;
