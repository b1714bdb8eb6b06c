//! Exit codes: 0 done; 1 the run failed; 2 the command, the configuration or the data are wrong; 85 stopped and resumable.

use trainer::system::agreement::is_user_error;

/// The run was asked to stop and can be resumed.
pub(crate) const STOPPED: u8 = 85;

/// The exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if is_user_error(error) { 2 } else { 1 }
}
