//! `iad-launch config`, `iad-launch completions` and `iad-launch man`.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;
use trainer::config::Override;

/// `iad-launch config CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Config {
    /// Configuration to print with every default, override and preset written out.
    #[arg(required_unless_present = "keys")]
    pub(crate) config: Option<PathBuf>,
    /// Override a configuration key, as in --set optimizer.lr=0.05; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Print every key there is, with type, default, range and meaning.
    #[arg(long, conflicts_with_all = ["config", "overrides"])]
    pub(crate) keys: bool,
    /// Print JSON instead of TOML or text.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `iad-launch completions SHELL`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Shell that completes the commands and options of this program.
    pub(crate) shell: Shell,
}

/// `iad-launch man`
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Existing folder to write the pages of all commands to (default: print the page of the program).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) to: Option<PathBuf>,
}
