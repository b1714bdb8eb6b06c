//! Watches the collectives that are under way, from a thread of its own, and ends the run when they fail or hang.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tch::Kind;

/// How long something may take before it counts as hanging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The connection of all ranks.
    pub(crate) connect: Duration,
    /// A collective, from its call to the end of its work.
    pub(crate) collective: Duration,
    /// The replay of a graph that holds collectives, from its launch to its end. It also waits for the replay before it, and has
    /// the work between the collectives to do.
    pub(crate) replay: Duration,
    /// Aborting or freeing the communicator.
    pub(crate) release: Duration,
}

impl Limits {
    /// The variable that sets the limits, in seconds.
    pub(crate) const VARIABLE: &str = "IAD_NCCL_TIMEOUT";

    /// The usual limits, or those of the variable's value.
    ///
    /// # Errors
    /// What a value should be.
    pub(crate) fn new(variable: Option<&str>) -> Result<Self, &'static str> {
        let second = Duration::from_secs(1);
        let of = |connect, collective| Self {
            connect,
            collective,
            replay: 2 * collective,
            release: connect.min(30 * second),
        };
        let Some(text) = variable else { return Ok(of(300 * second, 600 * second)) };
        match text.trim().parse::<u32>() {
            Ok(seconds @ 1..) => Ok(of(seconds * second, seconds * second)),
            _ => Err("a whole number of seconds, at least 1"),
        }
    }

    fn of(&self, what: &What) -> Duration {
        match what {
            // A rank that failed speaks before those that wait for it.
            What::Agreement(None) | What::Replay => self.replay,
            What::Collective(..) | What::Agreement(Some(_)) => self.collective,
        }
    }
}

/// What a rank does together with the others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// The collective of this name, of so many values of a type.
    Collective(&'static str, Kind, usize),
    /// The replay of a graph that holds collectives: one piece of work, for nobody can ask how far it is.
    Replay,
    /// The ranks' agreement by the host's transport whether each could capture a graph; and why this one could not.
    Agreement(Option<String>),
}

/// A piece of work of this rank.
#[derive(Debug, Clone)]
struct Piece {
    /// Its number among this rank's, from 1.
    number: u64,
    what: What,
    /// Whether it is being captured, and done by replays only.
    captured: bool,
    since: Instant,
}

impl std::fmt::Display for Piece {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, what, captured, .. } = self;
        match what {
            What::Collective(name, kind, values) => {
                let bytes = values * kind.elt_size_in_bytes();
                let captured = if *captured { ", captured" } else { "" };
                write!(
                    out,
                    "collective {number} (the {name} of {values} values of type {kind:?}, {bytes} bytes{captured})"
                )
            }
            What::Replay => write!(out, "collective {number} (the replay of a recorded step)"),
            What::Agreement(None) => write!(out, "the agreement on a recorded step, after collective {number},"),
            What::Agreement(Some(reason)) => write!(
                out,
                "this rank could not record a step, after collective {number}: {reason}. The agreement of all on it"
            ),
        }
    }
}

/// What is under way. `E` tells whether the GPU has passed the end of a collective.
pub(crate) struct Watch<E> {
    state: Mutex<State<E>>,
    failed: AtomicBool,
}

struct State<E> {
    count: u64,
    /// The piece whose call has not returned.
    calling: Option<Piece>,
    /// Those that the GPU has still to do, in the order of their calls.
    queued: VecDeque<(Piece, Arc<E>)>,
}

impl<E> Watch<E> {
    /// Nothing under way.
    pub(crate) fn new() -> Self {
        let state = State { count: 0, calling: None, queued: VecDeque::new() };
        Self { state: Mutex::new(state), failed: AtomicBool::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A piece of work is about to be called. What is `captured` has no number of its own.
    pub(crate) fn calls(&self, what: What, captured: bool) {
        let mut state = self.state();
        state.count += u64::from(!captured);
        state.calling = Some(Piece { number: state.count, what, captured, since: Instant::now() });
    }

    /// The call has returned, with an event after its work; or it has failed, or was captured: the event of captured work may not
    /// be asked for.
    pub(crate) fn returned(&self, end: Option<Arc<E>>) {
        let mut state = self.state();
        let call = state.calling.take();
        state.queued.extend(call.zip(end));
    }

    /// Whether nothing is under way, as far as has been looked.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.calling.is_none() && state.queued.is_empty()
    }

    /// Whether a thread is inside a call of NCCL.
    pub(crate) fn is_calling(&self) -> bool {
        self.state().calling.is_some()
    }

    /// Forgets what is done, and says what is wrong: an error of the work, or a piece that takes longer than `limits` say.
    pub(crate) fn look(&self, limits: &Limits, is_past: impl Fn(&E) -> Result<bool>) -> Option<String> {
        let mut state = self.state();
        while let Some((piece, end)) = state.queued.front() {
            match is_past(end) {
                Ok(true) => drop(state.queued.pop_front()),
                Ok(false) => break,
                Err(error) => return Some(format!("{piece} failed on the GPU: {error:#}")),
            }
        }
        let oldest = state.queued.front().map(|(piece, _)| piece).or(state.calling.as_ref())?;
        let limit = match oldest.captured && matches!(oldest.what, What::Collective(..)) {
            // Another rank may have failed to capture it, and says so first.
            true => limits.replay,
            false => limits.of(&oldest.what),
        };
        (oldest.since.elapsed() > limit).then(|| {
            format!(
                "{oldest} is not done after {} s ({} sets the limit). Another rank is gone, hangs or is at another \
                 collective, or the network fails",
                limit.as_secs(),
                Limits::VARIABLE
            )
        })
    }

    /// The piece that is under way, in words.
    pub(crate) fn under_way(&self) -> String {
        let state = self.state();
        let oldest = state.queued.front().map(|(piece, _)| piece).or(state.calling.as_ref());
        oldest.map_or_else(|| format!("after collective {}", state.count), |piece| format!("at {piece}"))
    }

    /// From here on, whoever asks waits for the end of the process.
    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Returns, unless the communicator has failed: then this rank must not compute on with what an aborted sum left behind.
    pub(crate) fn wait_if_failed(&self) {
        while self.failed.load(Ordering::SeqCst) {
            thread::park();
        }
    }
}

/// The result of `work`, done by another thread, if it comes within `limit`; else that thread is left behind.
pub(crate) fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(limit).ok()
}

#[cfg(test)]
mod tests;
