//! Requests from outside to stop in good order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

/// The last request, until the log has it; 0 for none.
static REQUEST: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// A flag that the first SIGTERM, SIGINT or SIGUSR1 raises. A second SIGTERM or SIGINT ends the process at once.
///
/// # Errors
/// The system refuses the handlers.
pub(crate) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGUSR1] {
        let context = || format!("installing a handler of signal {signal}");
        if signal != SIGUSR1 {
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop)).with_context(context)?;
        }
        signal_hook::flag::register(signal, Arc::clone(&stop)).with_context(context)?;
        let (number, request) = (signal.unsigned_abs() as usize, Arc::clone(&REQUEST));
        signal_hook::flag::register_usize(signal, request, number).with_context(context)?;
    }
    Ok(stop)
}

/// The request that has come since the last call.
pub(crate) fn new_request() -> Option<&'static str> {
    match i32::try_from(REQUEST.swap(0, Ordering::Relaxed)) {
        Ok(SIGTERM) => Some("SIGTERM"),
        Ok(SIGINT) => Some("SIGINT"),
        Ok(SIGUSR1) => Some("SIGUSR1"),
        _ => None,
    }
}
