//! Signals that ask for an orderly stop. `comm::hold_requests_from_the_start` holds them until the handlers are there.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comm::REQUESTS;
use nix::sys::signal::Signal;

/// Raised by the first request, for good.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// The last request, until it is taken; 0 for none.
static REQUEST: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Requests within this time are one: job managers signal a process by itself and with its group, and mpirun repeats
/// SIGTERM after a second.
const ONE_REQUEST: Duration = Duration::from_secs(3);

/// Listens to SIGTERM, SIGINT and SIGUSR1, those that came before included.
///
/// # Errors
/// The system refuses the handlers.
pub(crate) fn listen_to_requests() -> Result<()> {
    for signal in REQUESTS {
        let number = signal as i32;
        let context = || format!("installing a handler of {signal}");
        signal_hook::flag::register(number, Arc::clone(&STOP)).with_context(context)?;
        signal_hook::flag::register_usize(number, Arc::clone(&REQUEST), number as usize).with_context(context)?;
    }
    comm::release_requests();
    Ok(())
}

/// The flag that the first request raises.
pub(crate) fn stop_flag() -> Arc<AtomicBool> {
    Arc::clone(&STOP)
}

/// Whether a stop was requested.
pub(super) fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Raises the flag for a request that came another way than by a signal.
pub(super) fn request_stop() {
    STOP.store(true, Ordering::Relaxed);
}

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// The first one asks for an orderly stop.
    Stop(Signal),
    /// A later SIGTERM or SIGINT asks for an end at once.
    Force(Signal),
}

/// Tells a first request from later ones.
#[derive(Default)]
pub(super) struct Requests {
    first: Option<Instant>,
}

impl Requests {
    /// The request that has come since the last call.
    pub(super) fn take(&mut self) -> Option<Request> {
        let signal = i32::try_from(REQUEST.swap(0, Ordering::Relaxed)).ok()?;
        self.classify(Signal::try_from(signal).ok()?, Instant::now())
    }

    /// Repeated signals within [`ONE_REQUEST`] are nothing new, and SIGUSR1 never forces.
    fn classify(&mut self, signal: Signal, now: Instant) -> Option<Request> {
        match self.first {
            None => {
                self.first = Some(now);
                Some(Request::Stop(signal))
            }
            Some(first) if signal != Signal::SIGUSR1 && now - first >= ONE_REQUEST => Some(Request::Force(signal)),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_request_and_a_later_one_forces() {
        let (mut requests, began) = (Requests::default(), Instant::now());
        let mut after = |signal, milliseconds| requests.classify(signal, began + Duration::from_millis(milliseconds));
        assert_eq!(after(Signal::SIGTERM, 0), Some(Request::Stop(Signal::SIGTERM)));
        assert_eq!(after(Signal::SIGTERM, 1100), None, "mpirun repeats it");
        assert_eq!(after(Signal::SIGINT, 2900), None);
        assert_eq!(after(Signal::SIGUSR1, 9000), None, "SIGUSR1 never forces");
        assert_eq!(after(Signal::SIGINT, 9000), Some(Request::Force(Signal::SIGINT)));
    }
}
