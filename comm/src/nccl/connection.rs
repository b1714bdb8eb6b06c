//! How the ranks of a job come together for NCCL, and part.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use tch::Device;

use super::library::{self, Handle};
use super::watch::{Limits, Watch, within};
use super::{LINGER, LOOK, Nccl, Shared, window};
use crate::agreement::agree;
use crate::communicator::Communicator;
use crate::request::Report;
use crate::streams::Streams;

/// What a rank connects with.
pub(crate) struct Place {
    /// The number of its GPU.
    pub(crate) gpu: usize,
    /// Where its tensors live: on that GPU, but for tests.
    pub(crate) tensors: Device,
    /// Who it is, in messages.
    pub(crate) name: String,
    /// Whether graphs hold sums.
    pub(crate) in_graphs: bool,
    /// Whether small sums go through a window.
    pub(crate) windows: bool,
}

impl Nccl {
    /// Connects the ranks of `host`, or ends all of them with a message.
    ///
    /// # Errors
    /// What every rank hears of: no identity, no stream.
    pub(crate) fn connect(host: Arc<dyn Communicator>, place: Place, limits: Limits, report: Report) -> Result<Self> {
        let mut notes = vec![];
        let ordered = if library::keeps_order() { "ordered" } else { "" };
        let two = place.in_graphs && host.gather(ordered)?.iter().all(|one| !one.is_empty());
        if place.in_graphs && !two {
            notes.push(format!(
                "comm.in_graphs: all sums go by one communicator, for nothing keeps the order of two: NCCL 2.26 and newer does so with \
                 {}=1, and this is {}",
                library::ORDER,
                library::version()
            ));
        }
        let lanes = if two { 2 } else { 1 };
        let mut ids = vec![];
        for _ in 0..lanes {
            let made = if host.is_leader() { library::unique_id() } else { Ok(String::new()) };
            ids.push(host.gather(&agree(host.as_ref(), made, |_| false)?)?.swap_remove(0));
        }
        let streams = agree(host.as_ref(), Streams::open(place.gpu, place.tensors, lanes), |_| false)?;
        // No rank may still be inside MPI, waiting for the identity, when another waits for it inside NCCL.
        host.barrier()?;
        let streams = Arc::new(streams);
        let (rank, ranks, inside) = (host.rank(), host.world_size(), Arc::clone(&streams));
        let connected = within(limits.connect, move || {
            inside.enter()?;
            ids.iter().map(|id| Handle::connect(rank, ranks, id)).collect::<Result<Vec<_>>>()
        });
        let failure = match connected {
            Some(Ok(handles)) => match Self::with_window(handles, host.as_ref(), &streams, &place, limits) {
                Ok((handles, note)) => {
                    notes.extend(note);
                    return Ok(Self::watched(host, handles, streams, place, limits, report, notes));
                }
                Err(error) => format!("{error:#}"),
            },
            Some(Err(error)) => format!("{error:#}"),
            None => format!("no connection after {} s ({} sets the limit)", limits.connect.as_secs(), Limits::VARIABLE),
        };
        report(&format!(
            "{}: NCCL does not connect: {failure}\n  next: start again with NCCL_DEBUG=INFO to see where it waits; choose the \
             network by NCCL_SOCKET_IFNAME (`ip address` lists what there is); make sure that no firewall stands between the \
             hosts and that all of them are up; comm.backend = \"mpi\" does without NCCL",
            place.name
        ));
        thread::sleep(LINGER);
        host.abort(1)
    }

    /// The communicators, the one of small sums with its window where that was asked for; or a note of why not.
    fn with_window(
        mut handles: Vec<Handle>,
        host: &dyn Communicator,
        streams: &Arc<Streams>,
        place: &Place,
        limits: Limits,
    ) -> Result<(Vec<Handle>, Option<String>)> {
        let Some(last) = handles.last_mut().filter(|_| place.windows) else { return Ok((handles, None)) };
        let (handle, note) = window::open(*last, host, streams, limits.connect)?;
        *last = handle;
        Ok((handles, note))
    }

    fn watched(
        host: Arc<dyn Communicator>,
        handles: Vec<Handle>,
        streams: Arc<Streams>,
        place: Place,
        limits: Limits,
        report: Report,
        notes: Vec<String>,
    ) -> Self {
        let shared = Shared { host, handles, streams, watch: Watch::new(), limits, name: place.name, report };
        let shared = Arc::new(shared);
        let (open, closed) = channel();
        let watched = Arc::clone(&shared);
        let watch = thread::spawn(move || watched.keep_watch(&closed));
        Self { shared, device: place.tensors, turn: Mutex::default(), watching: Mutex::new(Some((open, watch))), notes }
    }

    /// Waits for what is under way and disconnects. Every rank must call it, as the last of its collectives.
    pub(crate) fn close(&self) {
        // A collective that hangs here is seen by the watch.
        while !self.shared.watch.is_idle() {
            thread::sleep(LOOK / 10);
        }
        let Some((open, watch)) = self.watching.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        drop(open);
        // The watch must not ask a communicator that is gone.
        let _ = watch.join();
        let (handles, streams) = (self.shared.handles.clone(), Arc::clone(&self.shared.streams));
        // Where it hangs, the end of the process frees what is left.
        within(self.shared.limits.release, move || {
            let _ = streams.enter();
            handles.into_iter().for_each(Handle::close);
        });
    }
}
