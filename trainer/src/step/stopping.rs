//! Requests to stop that are answered within a step. The ranks ask each other before each part of a batch and before each
//! step of its attack. All of them then give up the step at the same place, and it leaves no trace.

use std::cell::RefCell;
use std::fmt;

use anyhow::{Error, Result};
use tch::Tensor;

/// The step was given up because a rank was asked to stop.
#[derive(Debug)]
pub struct GivenUp;

impl fmt::Display for GivenUp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the step was given up because a stop was requested")
    }
}

impl std::error::Error for GivenUp {}

/// Asks whether a step goes on: [`GivenUp`] if it does not, or a failure of the transport. All ranks get the same answer.
pub type Ask<'a> = &'a dyn Fn() -> Result<()>;

/// Goes on with every step.
///
/// # Errors
/// None.
pub fn go_on() -> Result<()> {
    Ok(())
}

/// The objective of an attack that asks before each of its values. After an answer that ends the step it is 0 everywhere, so
/// that the attack ends without further passes.
pub struct Interruptible<'a> {
    ask: Ask<'a>,
    ended: RefCell<Option<Error>>,
}

impl<'a> Interruptible<'a> {
    /// Asks by `ask`.
    pub fn new(ask: Ask<'a>) -> Self {
        Self { ask, ended: RefCell::default() }
    }

    /// The value of `objective` at `candidate`, or 0.
    pub fn evaluate(&self, candidate: &Tensor, objective: impl FnOnce(&Tensor) -> Tensor) -> Tensor {
        let mut ended = self.ended.borrow_mut();
        if ended.is_none() {
            *ended = (self.ask)().err();
        }
        if ended.is_some() { candidate.sum(candidate.kind()) * 0.0 } else { objective(candidate) }
    }

    /// # Errors
    /// The answer that ended the step.
    pub fn finish(self) -> Result<()> {
        self.ended.into_inner().map_or(Ok(()), Err)
    }
}
