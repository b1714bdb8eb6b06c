//! `iad-launch bench ...`: parts of the program, timed; numbers as JSON on standard output, one line each.

mod step;

use anyhow::Result;

use crate::command::Bench;

/// Times what `command` names.
///
/// # Errors
/// A mistake of the user, or a failure of what is timed.
pub(crate) fn run(command: &Bench) -> Result<u8> {
    match command {
        Bench::Step(command) => step::run(command),
    }
}
