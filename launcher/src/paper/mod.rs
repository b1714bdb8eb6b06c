//! `iad-launch paper TABLE`: the runs of a table of the paper, and their numbers beside the published ones.
//!
//! It uses `exit`, `command`, `draw`, `start`, `report` and `train`. Read `file` and `published` (what is read), `table`
//! (its rows and runs), `results`, `plan`, `cost` and `list`, `compare`, then `run`.

mod compare;
mod cost;
mod file;
mod list;
mod plan;
mod published;
mod results;
mod run;
mod table;

pub(crate) use self::run::run;
