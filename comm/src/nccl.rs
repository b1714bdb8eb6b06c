//! Sums over ranks by NCCL, between GPUs. Host values, and tensors that live elsewhere, go the way of the host.
//!
//! A collective waits for what libtorch has queued before its call and runs on a stream of its own; `finish_sums` makes
//! libtorch's stream wait for it. Nothing here waits for the GPU. Where libtorch's stream is captured, the same calls make the
//! collectives part of the graph.
//!
//! Where graphs hold sums, there are two communicators, each with a stream: a sum that is needed at once does not wait for those
//! that run beside the computation. Their order is that of the host's calls, the same on all ranks, which NCCL_LAUNCH_ORDER_IMPLICIT
//! has NCCL keep.
//!
//! Why NCCL and the host's transport cannot block each other: both are called in program order, the same on every rank. Host
//! collectives come from the step's thread, NCCL's also from the backward pass, for which that thread waits. NCCL's calls
//! return when they are queued, except that they may wait for the other ranks' same call while a connection is made. MPI sees
//! the host's memory only, so it never waits for a GPU's work.
#![allow(unsafe_code)]

mod connection;
mod library;
mod sum_graph;
mod watch;
mod window;

use std::ffi::c_void;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cudarc::driver::sys::CUstream;
use tch::{Device, Kind, Tensor};

pub(crate) use self::connection::Place;
use self::library::Handle;
pub(crate) use self::library::{ORDER, check, note, version};
pub(crate) use self::sum_graph::SumGraph;
pub(crate) use self::watch::Limits;
use self::watch::{Watch, What, within};
use crate::clock::Alignment;
use crate::communicator::Communicator;
use crate::host_sum::HostSum;
use crate::request::Report;
use crate::streams::{Event, Streams};

/// How often the watch looks.
const LOOK: Duration = Duration::from_millis(100);

/// Between a rank's last words and its end, which is that of all: others that have something to say say it too.
const LINGER: Duration = Duration::from_secs(1);

/// The communicator of sums that run beside the computation.
const BESIDE: usize = 0;

/// The ranks of a job, each with a GPU.
pub(crate) struct Nccl {
    shared: Arc<Shared>,
    device: Device,
    turn: Mutex<Turn>,
    /// Dropped when the session ends, which ends the watch.
    watching: Mutex<Option<(Sender<()>, JoinHandle<()>)>>,
    /// What the user should know of this connection.
    pub(crate) notes: Vec<String>,
}

/// What the watch sees too.
struct Shared {
    host: Arc<dyn Communicator>,
    /// One communicator, or two: the last one makes the sums that are needed at once.
    handles: Vec<Handle>,
    streams: Arc<Streams>,
    watch: Watch<Event>,
    limits: Limits,
    name: String,
    report: Report,
}

/// Sums started and not finished. Whoever holds it may call NCCL.
#[derive(Default)]
struct Turn {
    last: Option<Arc<Event>>,
    /// Their memory must not be used again before libtorch's stream waits for the sums.
    tensors: Vec<Tensor>,
    /// Whether a graph is being captured, which holds them.
    captures: bool,
}

/// A collective of [`Handle`].
type Call = unsafe fn(Handle, *mut c_void, usize, Kind, CUstream) -> Result<()>;

impl Nccl {
    /// Queues a collective on `tensor` behind everything that libtorch has queued; the event behind it.
    fn queue(
        &self,
        lane: usize,
        name: &'static str,
        call: Call,
        tensor: &Tensor,
        turn: &mut Turn,
    ) -> Result<Arc<Event>> {
        ensure!(tensor.is_contiguous(), "only contiguous tensors travel, this one has shape {:?}", tensor.size());
        let shared = &self.shared;
        shared.streams.enter()?;
        shared.streams.collectives_wait(lane)?;
        let (values, count, kind) = (tensor.data_ptr(), tensor.numel(), tensor.kind());
        let (handle, stream) = (shared.handles[lane], shared.streams.collectives(lane));
        turn.tensors.push(tensor.shallow_clone());
        shared.watch.calls(What::Collective(name, kind, count), turn.captures);
        // SAFETY: the tensor is contiguous, on this rank's device, and kept in `turn` until libtorch's stream has been made
        // to wait; until then it is the collective's alone, as the contract of `start_sum` says. In a capture its memory is
        // that of the graph or outlives it, as for everything that a graph reads.
        let called = unsafe { call(handle, values, count, kind, stream) };
        let end = called.and_then(|()| shared.streams.mark(lane)).map(Arc::new);
        shared.watch.returned(end.as_ref().ok().filter(|_| !turn.captures).cloned());
        // A call that was aborted fails too, but the watch has told why.
        shared.watch.wait_if_failed();
        end.with_context(|| format!("NCCL, {}", shared.watch.under_way()))
    }

    /// Queues a replay of captured sums on `stream` by `launch`; the event behind it.
    fn launched(&self, stream: CUstream, launch: &mut dyn FnMut() -> Result<()>) -> Result<Arc<Event>> {
        // Nothing that was started before may be left for the graph's own sums to overtake.
        self.join(&mut self.turn())?;
        let shared = &self.shared;
        shared.watch.calls(What::Replay, false);
        let end =
            launch().and_then(|()| shared.streams.enter()).and_then(|()| shared.streams.mark_on(stream)).map(Arc::new);
        shared.watch.returned(end.as_ref().ok().cloned());
        shared.watch.wait_if_failed();
        end
    }

    /// Makes libtorch's stream wait for all that was queued.
    fn join(&self, turn: &mut Turn) -> Result<()> {
        if let Some(event) = turn.last.take() {
            self.shared.streams.enter()?;
            self.shared.streams.torch_waits(&event)?;
        }
        turn.tensors.clear();
        Ok(())
    }

    /// The turn to call NCCL, if the communicator is whole.
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.shared.watch.wait_if_failed();
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host's transport, if the communicator is whole.
    fn host(&self) -> &dyn Communicator {
        self.shared.watch.wait_if_failed();
        self.shared.host.as_ref()
    }
}

impl Shared {
    /// Looks after the communicator until the session ends.
    fn keep_watch(self: Arc<Self>, closed: &Receiver<()>) {
        // Events are asked for on the rank's GPU; where that fails, asking fails and is told.
        let _ = self.streams.enter().and_then(|()| Streams::spare_captures());
        while closed.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            // First, so that what is said of NCCL's own errors names the collective that they stopped.
            let late = self.watch.look(&self.limits, Event::is_past);
            let trouble = self.handles.iter().find_map(|handle| handle.trouble());
            let told = trouble.map(|words| format!("{}: {words}", self.watch.under_way()));
            if let Some(trouble) = told.or(late) {
                self.end(&trouble);
            }
        }
    }

    /// Ends all ranks. What waits for a GPU is freed by aborting the communicator, which may itself hang.
    fn end(&self, trouble: &str) -> ! {
        self.watch.fail();
        (self.report)(&format!(
            "{}: NCCL, {trouble}\n  next: look at what the other ranks say; NCCL_DEBUG=INFO shows NCCL's own reasons; the same \
             command goes on from the last checkpoint",
            self.name
        ));
        let handles = self.handles.clone();
        let abort = move || handles.into_iter().for_each(Handle::abort);
        // Aborting frees the communicator, which a thread that is inside a call still uses: there the end of the process frees it.
        if !self.watch.is_calling() && within(self.limits.release, abort).is_none() {
            (self.report)(&format!(
                "{}: NCCL does not let itself be aborted either; this rank ends without it",
                self.name
            ));
        }
        thread::sleep(LINGER);
        self.host.abort(1)
    }
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.shared.host.rank()
    }

    fn world_size(&self) -> usize {
        self.shared.host.world_size()
    }

    fn start_sum(&self, tensor: &Tensor) -> Result<()> {
        if tensor.device() != self.device {
            return self.host().start_sum(tensor);
        }
        let mut turn = self.turn();
        turn.last = Some(self.queue(BESIDE, "sum", Handle::sum, tensor, &mut turn)?);
        Ok(())
    }

    fn sum_at_once(&self, tensor: &Tensor) -> Result<()> {
        if tensor.device() != self.device {
            return self.host().sum_at_once(tensor);
        }
        let lane = self.shared.handles.len() - 1;
        let mut turn = self.turn();
        let end = self.queue(lane, "sum", Handle::small_sum, tensor, &mut turn)?;
        if lane == BESIDE {
            turn.last = Some(end);
            return self.join(&mut turn);
        }
        // libtorch's stream waits for this sum; those before it go on beside what comes next.
        turn.tensors.pop();
        self.shared.streams.torch_waits(&end)
    }

    fn captures(&self) -> bool {
        true
    }

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Result<()>> {
        let mut turn = self.turn();
        // A graph cannot wait for work that is not in it.
        self.join(&mut turn)?;
        turn.captures = true;
        drop(turn);
        let captured = work();
        // A capture that failed leaves sums that nobody makes.
        *self.turn() = Turn::default();
        let shared = &self.shared;
        shared.watch.calls(What::Agreement(captured.as_ref().err().map(|error| format!("{error:#}"))), true);
        let mut captured = Some(captured);
        let agreed = shared.host.capture(&mut || captured.take().unwrap_or(Ok(())));
        shared.watch.returned(None);
        shared.watch.wait_if_failed();
        agreed
    }

    fn replay(&self, launch: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        if !self.device.is_cuda() {
            // Operations of the host that were recorded make their sums one by one.
            return launch();
        }
        self.launched(self.shared.streams.torch()?, launch).map(drop)
    }

    fn finish_sums(&self) -> Result<()> {
        self.join(&mut self.turn())?;
        self.host().finish_sums()
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn sums(&self, kind: Kind) -> bool {
        library::travels(kind)
    }

    fn start_host_sum(&self, values: Vec<f64>) -> Result<HostSum> {
        self.host().start_host_sum(values)
    }

    fn align(&self, clock: &dyn Fn() -> f64) -> Result<Alignment> {
        self.host().align(clock)
    }

    fn broadcast(&self, tensor: &Tensor) -> Result<()> {
        if tensor.device() != self.device {
            return self.host().broadcast(tensor);
        }
        let mut turn = self.turn();
        turn.last = Some(self.queue(BESIDE, "broadcast", Handle::broadcast, tensor, &mut turn)?);
        self.join(&mut turn)
    }

    fn sum(&self, values: &mut [f64]) -> Result<()> {
        self.host().sum(values)
    }

    fn gather(&self, text: &str) -> Result<Vec<String>> {
        self.host().gather(text)
    }

    fn barrier(&self) -> Result<()> {
        self.host().barrier()
    }

    fn abort(&self, code: i32) -> ! {
        // The watch may be about to say more, and may not be waited for.
        self.shared.host.abort(code)
    }
}
