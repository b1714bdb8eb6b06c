//! `iad-launch runs` and `iad-launch compare`: what there is, and how two runs differ.
//!
//! It uses `command`, `console`, `draw` and `report`. Read `found`, then `list` and `compare`.

mod compare;
mod found;
#[cfg(test)]
mod fuzz;
mod list;

pub(crate) use self::compare::run as compare;
pub(crate) use self::list::run as list;
