//! The ground floor: this rank's place in a run, agreement between ranks, clocks, transfers and safe files.
//!
//! Uses no other folder of this crate. Read [`Worker`] first, then [`agreement`], [`timeline`] and [`files`].

mod activity;
pub mod agreement;
mod background;
mod fault;
pub mod files;
pub mod memory;
mod phase;
mod stage;
pub mod summing;
pub mod timeline;
pub mod transfer;
mod watched;
mod worker;

pub use self::activity::{Activity, Doing, Sums};
pub use self::background::Background;
pub use self::fault::{Fault, FaultKind};
pub use self::phase::{Phase, Seconds};
pub use self::stage::Stage;
pub use self::watched::Watched;
pub use self::worker::Worker;
