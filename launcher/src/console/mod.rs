//! The messages of the program: lines on stderr, console.log and the logs of the ranks.
//!
//! It uses nothing of this crate. Read `units`, `block`, `say` and `time_left`, then `progress_line`, `live`, `run_console` and
//! `rank_log`.

mod block;
mod live;
mod progress_line;
mod rank_log;
mod run_console;
mod say;
mod time_left;
mod units;

pub(crate) use self::block::set_plain;
pub(crate) use self::progress_line::ProgressLine;
pub(crate) use self::rank_log::{Logged, RankLog};
pub(crate) use self::run_console::Console;
pub(crate) use self::say::{Out, error, error_text, say, set_quiet, tell};
pub(crate) use self::units::{bytes, counted, duration, operations, percent, rate_of_operations};
