//! Small sums through memory that all ranks registered with NCCL as a symmetric window: a sum there is one kernel that reads the
//! memory of the others, where they can reach it. The values are copied in and out, on the communicator's stream.
//!
//! NCCL has such kernels for float32 and bfloat16, not for float64 and integers: those are summed as without a window.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use cudarc::driver::result::memcpy_dtod_async;
use cudarc::driver::sys::CUstream;
use cudarc::nccl::sys;
use tch::Kind;

use super::library::{self, Handle, Window, done};
use super::watch::within;
use crate::agreement::{Agreed, agree};
use crate::communicator::Communicator;
use crate::streams::Streams;

/// The size of a window, in bytes: that of the largest sum that goes through it.
const SIZE: usize = 64 << 10;

/// `NCCL_WIN_COLL_SYMMETRIC`: the same place in the window of every rank.
const SYMMETRIC: c_int = 1;

/// What NCCL 2.27 and later have for windows; cudarc panics where one is missing.
const NEEDED: [&str; 4] = ["ncclMemAlloc", "ncclMemFree", "ncclCommWindowRegister", "ncclCommWindowDeregister"];

/// Gives the communicator a window, if every rank can have one; else all of them stay without, and hear why. Every rank makes the
/// call, when no collective is under way and nothing is captured.
///
/// # Errors
/// A failure of the host's transport, or no answer of NCCL within `limit`.
pub(super) fn open(
    handle: Handle,
    host: &dyn Communicator,
    streams: &Arc<Streams>,
    limit: Duration,
) -> Result<(Handle, Option<String>)> {
    let without = |why: String| {
        Ok((handle, Some(format!("comm.windows: small sums go without NCCL's windows, on all ranks: {why}"))))
    };
    let memory = library::has(&NEEDED).and_then(|()| streams.enter()).and_then(|()| allocate());
    let mine = memory.as_ref().ok().copied();
    let memory = match agreed(host, memory)? {
        Ok(memory) => memory,
        Err(why) => {
            mine.into_iter().for_each(free);
            return without(why);
        }
    };
    let inside = Arc::clone(streams);
    let registered = within(limit, move || inside.enter().and_then(|()| register(handle, memory)));
    let registered = registered.with_context(|| {
        format!(
            "no answer about the window of small sums after {} s; comm.windows = false does without",
            limit.as_secs()
        )
    })?;
    // A window that only some ranks have stays with the communicator, unused: giving it back is a call of all ranks too.
    match agreed(host, registered)? {
        Ok(window) => Ok((handle.through(window), None)),
        Err(why) => without(why),
    }
}

/// What all ranks have, or why one has it not.
fn agreed<T>(host: &dyn Communicator, mine: Result<T>) -> Result<Result<T, String>> {
    match agree(host, mine, |_| false) {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is::<Agreed>() => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}

/// The address of a rank's memory for a window.
fn allocate() -> Result<usize> {
    let mut memory = ptr::null_mut();
    // SAFETY: the function is there, as `open` has looked, and `memory` is a live place.
    done("ncclMemAlloc", unsafe { sys::ncclMemAlloc(&mut memory, SIZE) }.result(), ptr::null_mut())?;
    Ok(memory.addr())
}

fn free(memory: usize) {
    // SAFETY: from `allocate`, and used by nobody any more.
    let _ = unsafe { sys::ncclMemFree(ptr::with_exposed_provenance_mut(memory)) };
}

fn register(handle: Handle, memory: usize) -> Result<Window> {
    let mut window = ptr::null_mut();
    let place: *mut c_void = ptr::with_exposed_provenance_mut(memory);
    // SAFETY: the communicator lives, `place` is SIZE bytes of `allocate`, which stay until `close`, and `window` is a live place.
    let answer = unsafe { sys::ncclCommWindowRegister(handle.raw(), place, SIZE, &mut window, SYMMETRIC) };
    done("ncclCommWindowRegister", answer.result(), handle.raw())?;
    // Where the GPUs cannot reach each other's memory, NCCL succeeds without a window.
    ensure!(!window.is_null(), "ncclCommWindowRegister: these GPUs have no symmetric memory");
    Ok(Window { memory, window: window.addr() })
}

impl Handle {
    /// Queues the sum over the ranks of `count` values at `values`, in place: through the window where there is one, the values
    /// fit, and NCCL has a kernel for their type. The same is so on all ranks.
    ///
    /// # Safety
    /// As for [`sum`](Self::sum).
    ///
    /// # Errors
    /// As for [`sum`](Self::sum).
    pub(super) unsafe fn small_sum(
        self,
        values: *mut c_void,
        count: usize,
        kind: Kind,
        stream: CUstream,
    ) -> Result<()> {
        let bytes = count * kind.elt_size_in_bytes();
        let fits = matches!(kind, Kind::Float | Kind::BFloat16) && (1..=SIZE).contains(&bytes);
        let Some(window) = self.window().filter(|_| fits) else {
            // SAFETY: as promised by the caller.
            return unsafe { self.sum(values, count, kind, stream) };
        };
        let copy = |to: usize, from: usize| {
            // SAFETY: both are `bytes` of the GPU's memory: the caller's, and the window's, which is as large and used by this
            // communicator's stream alone, one sum after another.
            unsafe { memcpy_dtod_async(to as u64, from as u64, bytes, stream) }
                .map_err(|error| anyhow!("a copy: {error}"))
        };
        copy(window.memory, values.addr())?;
        // SAFETY: the window's memory, on the stream that has filled it.
        unsafe { self.sum(ptr::with_exposed_provenance_mut(window.memory), count, kind, stream) }?;
        copy(values.addr(), window.memory)
    }

    /// Frees the communicator and its window once their work is done. Every rank makes the call; it may hang where another is gone.
    pub(super) fn close(self) {
        let Some(window) = self.window() else { return self.destroy() };
        // SAFETY: called once, at the end of the session, with what `register` made.
        let _ = unsafe { sys::ncclCommWindowDeregister(self.raw(), ptr::with_exposed_provenance_mut(window.window)) };
        self.destroy();
        free(window.memory);
    }
}
