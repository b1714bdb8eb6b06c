//! Sums over the ranks as parts of a step: made at once, or by each replay where the CPU's operations are recorded. What a graph
//! of a GPU holds is captured by the transport.

use std::sync::Arc;

use anyhow::{Error, Result};
use comm::Communicator;
use tch::Tensor;

/// The ranks of a step.
type Ranks = Arc<dyn Communicator>;

/// [`Communicator::start_sum`].
///
/// # Errors
/// A failure of the transport.
pub fn start(ranks: &Ranks, tensor: &Tensor) -> Result<()> {
    in_turn(ranks, Some(tensor), |ranks, tensor| tensor.map_or(Ok(()), |tensor| ranks.start_sum(tensor)))
}

/// [`Communicator::sum_at_once`].
///
/// # Errors
/// A failure of the transport.
pub fn at_once(ranks: &Ranks, tensor: &Tensor) -> Result<()> {
    in_turn(ranks, Some(tensor), |ranks, tensor| tensor.map_or(Ok(()), |tensor| ranks.sum_at_once(tensor)))
}

/// [`Communicator::finish_sums`].
///
/// # Errors
/// A failure of the transport.
pub fn finish(ranks: &Ranks) -> Result<()> {
    in_turn(ranks, None, |ranks, _| ranks.finish_sums())
}

/// A call of the transport.
type Call = fn(&dyn Communicator, Option<&Tensor>) -> Result<()>;

fn in_turn(ranks: &Ranks, tensor: Option<&Tensor>, call: Call) -> Result<()> {
    let inside = Arc::clone(ranks);
    let replayed = move |tensor: Option<&Tensor>| call(inside.as_ref(), tensor).map_err(|error| format!("{error:#}"));
    match torch_ext::record_call(tensor, replayed).map_err(Error::msg)? {
        true => Ok(()),
        false => call(ranks.as_ref(), tensor),
    }
}
