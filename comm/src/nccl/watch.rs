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
        let release = 30 * second;
        let Some(text) = variable else { return Ok(Self { connect: 300 * second, collective: 600 * second, release }) };
        match text.trim().parse::<u32>() {
            Ok(seconds @ 1..) => {
                let limit = seconds * second;
                Ok(Self { connect: limit, collective: limit, release: release.min(limit) })
            }
            _ => Err("a whole number of seconds, at least 1"),
        }
    }
}

/// A collective of this rank.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Collective {
    /// Its number among this rank's, from 1.
    number: u64,
    what: &'static str,
    kind: Kind,
    values: usize,
    since: Instant,
}

impl std::fmt::Display for Collective {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, what, kind, values, .. } = self;
        let bytes = values * kind.elt_size_in_bytes();
        write!(out, "collective {number} (the {what} of {values} values of type {kind:?}, {bytes} bytes)")
    }
}

/// What is under way. `E` tells whether the GPU has passed the end of a collective.
pub(crate) struct Watch<E> {
    state: Mutex<State<E>>,
    failed: AtomicBool,
}

struct State<E> {
    count: u64,
    /// The collective whose call has not returned.
    calling: Option<Collective>,
    /// Those that the GPU has still to do, in their order.
    queued: VecDeque<(Collective, Arc<E>)>,
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

    /// A collective is about to be called.
    pub(crate) fn calls(&self, what: &'static str, kind: Kind, values: usize) {
        let mut state = self.state();
        state.count += 1;
        state.calling = Some(Collective { number: state.count, what, kind, values, since: Instant::now() });
    }

    /// The call has returned, with an event after its work; or it has failed.
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

    /// Forgets what is done, and says what is wrong: an error of the work, or a collective that takes longer than `limit`.
    pub(crate) fn look(&self, limit: Duration, is_past: impl Fn(&E) -> Result<bool>) -> Option<String> {
        let mut state = self.state();
        while let Some((collective, end)) = state.queued.front() {
            match is_past(end) {
                Ok(true) => drop(state.queued.pop_front()),
                Ok(false) => break,
                Err(error) => return Some(format!("{collective} failed on the GPU: {error:#}")),
            }
        }
        let oldest = state.queued.front().map(|(collective, _)| collective).or(state.calling.as_ref())?;
        (oldest.since.elapsed() > limit).then(|| {
            format!(
                "{oldest} is not done after {} s ({} sets the limit). Another rank is gone, hangs or is at another \
                 collective, or the network fails",
                limit.as_secs(),
                Limits::VARIABLE
            )
        })
    }

    /// The collective that is under way, in words.
    pub(crate) fn under_way(&self) -> String {
        let state = self.state();
        let oldest = state.queued.front().map(|(collective, _)| collective).or(state.calling.as_ref());
        oldest.map_or_else(|| format!("after collective {}", state.count), |collective| format!("at {collective}"))
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
mod tests {
    use super::*;

    fn started(watch: &Watch<bool>, past: bool) {
        watch.calls("sum", Kind::Float, 10);
        watch.returned(Some(Arc::new(past)));
    }

    const LONG: Duration = Duration::from_secs(1000);

    #[test]
    fn what_is_done_is_forgotten_in_order() {
        let watch = Watch::new();
        for past in [true, true, false, true] {
            started(&watch, past);
        }
        assert_eq!(watch.look(LONG, |past| Ok(*past)), None);
        assert_eq!(watch.under_way(), "at collective 3 (the sum of 10 values of type Float, 40 bytes)");
        assert!(!watch.is_idle());
        assert_eq!(watch.look(LONG, |_| Ok(true)), None);
        assert!(watch.is_idle());
        assert_eq!(watch.under_way(), "after collective 4");
    }

    #[test]
    fn a_hanging_collective_is_named_whether_it_was_queued_or_not() {
        let watch = Watch::new();
        watch.calls("broadcast", Kind::BFloat16, 3);
        let said = watch.look(Duration::ZERO, |past| Ok(*past)).unwrap();
        assert!(
            said.starts_with("collective 1 (the broadcast of 3 values of type BFloat16, 6 bytes) is not done"),
            "{said}"
        );
        assert!(watch.is_calling());
        watch.returned(Some(Arc::new(false)));
        assert!(!watch.is_calling());
        assert!(watch.look(Duration::ZERO, |past| Ok(*past)).unwrap().starts_with("collective 1 "));
        assert_eq!(watch.look(LONG, |past| Ok(*past)), None);
    }

    #[test]
    fn a_failed_call_is_not_waited_for() {
        let watch = Watch::<bool>::new();
        watch.calls("sum", Kind::Float, 1);
        watch.returned(None);
        assert!(watch.is_idle());
    }

    #[test]
    fn an_error_of_the_work_is_told() {
        let watch = Watch::new();
        started(&watch, false);
        let said = watch.look(LONG, |_| anyhow::bail!("an illegal address")).unwrap();
        assert!(said.contains("collective 1") && said.ends_with("failed on the GPU: an illegal address"), "{said}");
    }

    #[test]
    fn limits_come_from_the_variable() {
        let usual = Limits::new(None).unwrap();
        assert_eq!((usual.connect.as_secs(), usual.collective.as_secs(), usual.release.as_secs()), (300, 600, 30));
        let short = Limits::new(Some(" 5 ")).unwrap();
        assert_eq!((short.connect.as_secs(), short.collective.as_secs(), short.release.as_secs()), (5, 5, 5));
        assert_eq!(Limits::new(Some("90")).unwrap().release.as_secs(), 30);
        for wrong in ["", "0", "-1", "1.5", "soon"] {
            assert!(Limits::new(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn work_that_takes_too_long_is_left_behind() {
        assert_eq!(within(LONG, || 3), Some(3));
        let (_keep, never) = std::sync::mpsc::channel::<i32>();
        assert_eq!(within(Duration::from_millis(10), move || never.recv()), None);
    }
}
