//! Starting, joining and watching the ranks of a command.
//!
//! It uses `exit`, `command` and `console`. Read `environment`, `recorded`, `exports` and `announced`; `signals`, `deadline`, `watchdog`,
//! `beat` and `control` (both sides); `restart`, `notices`, `leftovers`, `binding`, `mpirun`, `running` and `spawn` (the process that
//! starts the ranks); `watch`, `silence`, `heartbeat` and `session` (each rank).

mod addresses;
mod announced;
mod beat;
mod binding;
mod control;
mod deadline;
mod environment;
mod exports;
mod heartbeat;
mod leftovers;
mod mpirun;
mod notices;
mod recorded;
mod restart;
mod running;
mod session;
mod signals;
mod silence;
mod spawn;
mod watch;
mod watchdog;

pub(crate) use self::announced::{check, speaks};
pub(crate) use self::environment::{announced_ranks, mpirun, variable};
pub(crate) use self::mpirun::{binding_in_words, on_ranks, one_of};
pub(crate) use self::recorded::{recorded, without_passwords};
pub(crate) use self::session::{start_line, with_session};
pub(crate) use self::signals::{listen_to_requests, stop_flag};
pub(crate) use self::spawn::{needs_mpirun, print_gpus, ranks, spawn};
pub(crate) use self::watch::activity;
pub(crate) use self::watchdog::set_budgets;
