//! `iad-launch report`: a page, a figure and a table from run folders alone. It does not know how a run is made.
//!
//! It uses `command`, `draw` and `console`. Read `names`, `confusion` and `data` (what a run folder holds), `percentage`, `spread`, `seeds`, `curve`,
//! `teaching`, `radius`, `sweeps` and `charts`, `summary`, `overview`, `differing` and `effort` (text and grids of text), `table`, `figures`, `gallery` and `page`, then `evaluation`, `forms` and `write` (what is printed and
//! written).

mod charts;
mod confusion;
mod curve;
mod data;
mod differing;
mod effort;
mod evaluation;
mod figures;
mod forms;
#[cfg(test)]
pub(crate) mod fuzz;
mod gallery;
mod names;
mod overview;
mod page;
mod percentage;
mod radius;
mod seeds;
mod spread;
mod summary;
mod sweeps;
mod table;
mod teaching;
mod write;

pub(crate) use self::data::{Evaluation, RecordedRun, finite, read};
pub(crate) use self::differing::differing;
pub(crate) use self::evaluation::print_evaluation;
pub(crate) use self::percentage::percentage;
pub(crate) use self::seeds::{OVER_SEEDS, OverSeeds, expanded, grid_over_seeds, over_seeds};
pub(crate) use self::spread::{Figure, Measurement};
pub(crate) use self::write::{run_command, show_results};
