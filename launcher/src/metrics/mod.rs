//! `iad-launch metrics RUN`: the numbers of metrics.jsonl for other programs, as CSV or for TensorBoard.
//!
//! It uses `command`, `console` and `report` (what a run folder holds). Read `scalars`, `histograms` and `images`, then `record`,
//! `tensorboard` and `run`.

#[cfg(test)]
mod fuzz;
mod histograms;
mod images;
mod record;
mod run;
mod scalars;
mod tensorboard;

pub(crate) use self::run::run;
