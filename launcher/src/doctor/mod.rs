//! `iad-launch doctor`: whether this machine, or the machines of a job, can train, and what to do where they cannot.
//!
//! It uses `command`, `console`, `machine` and `start`. Read `finding`; `libraries`, `processor`, `limits`, `storage` and
//! `network` (each looks at one thing); `ranks` (what the ranks of a job find together); then `run`.

mod finding;
mod libraries;
mod limits;
mod network;
mod processor;
mod ranks;
mod run;
mod storage;

pub(crate) use self::run::run;
