//! A sum of host values that is under way.

use anyhow::Result;

/// Values that are being added up over the ranks. Dropped unfinished, it waits for its end: every rank has started it.
#[must_use = "the sums are what finish returns"]
pub struct HostSum(Box<dyn FnOnce() -> Result<Vec<f64>> + Send>);

impl HostSum {
    /// The sum that `wait` returns when it is there. What `wait` owns ends the sum in order when it is dropped uncalled.
    pub fn new(wait: impl FnOnce() -> Result<Vec<f64>> + Send + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Waits for the sums, in the order of the values.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn finish(self) -> Result<Vec<f64>> {
        (self.0)()
    }
}
