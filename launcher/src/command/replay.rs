//! `iad-launch replay RUN_OR_STEP`.

use std::path::PathBuf;

use clap::Args;

use super::launch::LaunchArgs;

/// `iad-launch replay RUN_OR_STEP`
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A step that a run kept, as in runs/my/offending/step-00000040.safetensors, or the run folder: its newest one.
    #[arg(value_name = "RUN_OR_STEP")]
    pub(crate) step: PathBuf,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}
