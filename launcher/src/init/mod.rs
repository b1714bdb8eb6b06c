//! `iad-launch init DATASET`: a configuration of one's own, with a comment at every line.
//!
//! It uses `command`, `console` and `sbatch`. Read `names` (the spellings of papers), `recipe` (the values), `words` and `text`
//! (what is written), then `run`.

mod names;
mod recipe;
mod run;
mod text;
mod words;

pub(crate) use self::run::run;
