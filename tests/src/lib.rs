//! Tests of the program as its users run it: real mpirun, real files, real faults.
//!
//! This library is what the tests in `tests/` are written in: a [`World`] of small files, a [`Program`] to run in it,
//! and readers of what the program leaves behind. It knows the program by its command line and files alone.

use std::io::Write as _;

mod alike;
mod disk;
mod draws;
mod ended;
mod golden;
mod imports;
mod nodes;
mod program;
mod python;
mod records;
mod running;
mod sources;
mod stand_in;
mod teachers;
mod world;

pub use alike::assert_same_on_ranks_and_resumed;
pub use disk::{DiskCall, DiskFault, disk_calls};
pub use draws::Draws;
pub use ended::Ended;
pub use golden::assert_golden;
pub use imports::{Arrow, arrows, loops, upward};
pub use nodes::Nodes;
pub use program::Program;
pub use python::{Python, python};
pub use records::{Stored, assert_same_run, has_done, header, largest_difference, metrics, student, tensors};
pub use running::{Running, handles_requests, holds_requests};
pub use sources::{Finding, Rule, find};
pub use stand_in::{stand_in, stand_in_without_windows};
pub use world::{IAD_1, Images, WEIGHTS_OF_EVERY_KIND, World, checkout, files_below};

/// A line to whoever runs the tests, which a test that passes does not swallow: what was skipped, or measured.
pub fn tell(text: &str) {
    // Nothing can be done about a closed stderr, and it is no failure of a test.
    let _ = writeln!(std::io::stderr(), "{text}");
}
