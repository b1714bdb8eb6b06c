//! `iad-launch runs` and `iad-launch compare`.

use std::path::PathBuf;

use clap::Args;

/// `iad-launch runs [FOLDER]`
#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// Folder to look in, and three levels below it.
    #[arg(default_value = "runs")]
    pub(crate) folder: PathBuf,
    /// Print the list as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `iad-launch compare RUN RUN ...`
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Run folders. A folder with the runs of several seeds stands for all of them.
    #[arg(required = true, num_args = 1..)]
    pub(crate) runs: Vec<PathBuf>,
    /// Print the comparison as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
