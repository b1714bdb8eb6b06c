//! `iad-launch metrics RUN`.

use std::path::PathBuf;

use clap::Args;

/// `iad-launch metrics RUN`
#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// Run folder; the run may be under way.
    pub(crate) run: PathBuf,
    /// File for the comma-separated values (default: print them).
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) csv: Option<PathBuf>,
    /// Folder for an event file of TensorBoard instead; one of an earlier call is replaced.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) tensorboard: Option<PathBuf>,
}
