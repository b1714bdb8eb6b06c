//! `iad-launch sbatch CONFIG`: a script for a scheduler that is stopped in time, requeued and resumed until the run is done.
//!
//! It uses `command`, `console`, `exit`, `train` (its seeds) and `plan`. Read `script` (the text), then `run`.

mod run;
mod script;

pub(crate) use self::run::run;
pub(crate) use self::script::quoted;
