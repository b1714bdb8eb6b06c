//! `iad-launch doctor`.

use std::path::PathBuf;

use clap::Args;

/// `iad-launch doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Folder for future run folders; its file system is tested.
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    pub(crate) runs: PathBuf,
    /// Print the findings as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
