//! Requests from outside to stop in good order.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

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
    }
    Ok(stop)
}
