//! How the ranks of a run talk. Knows tensors and ranks, nothing of models, losses or configurations.
//!
//! Read `communicator` first; then `single`, `mpi` and `nccl`, its three implementations; `devices`, which chooses a GPU for each
//! rank; and `session`, which joins all of them.

mod agreement;
mod clock;
mod communicator;
mod devices;
mod driver;
mod gpu;
mod host_sum;
mod launcher_variables;
mod libraries;
mod machine;
mod measure;
mod mpi;
mod mpi_family;
mod nccl;
mod process;
mod refusal;
mod request;
mod session;
mod single;
mod streams;

pub use crate::agreement::{Agreed, agree};
pub use crate::clock::Alignment;
pub use crate::communicator::Communicator;
pub use crate::host_sum::HostSum;
pub use crate::launcher_variables::{RANK_VARIABLES, SIZE_VARIABLES, launcher_rank, started_by_mpi};
pub use crate::libraries::Libraries;
pub use crate::machine::{host_name, visible_gpus};
pub use crate::measure::{MeasuredSum, measure_captured_sum, measure_plain_mpi, measure_sum};
#[doc(hidden)]
pub use crate::process::hold_requests;
pub use crate::process::{REQUESTS, pending_request, release_requests, tie_to_parent, wake_when_orphaned};
pub use crate::refusal::Refusal;
pub use crate::request::{Backend, Compute, Report, Request};
pub use crate::session::{Session, World};
pub use crate::single::Single;
