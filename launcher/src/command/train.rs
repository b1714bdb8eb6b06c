//! `iad-launch [train] CONFIG`.

use std::path::PathBuf;

use clap::Args;
use trainer::config::Override;

use super::launch::LaunchArgs;
use super::plan::Plan;

/// `iad-launch [train] CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Train {
    /// Configuration of the run, or a run folder to resume.
    pub(crate) config: PathBuf,
    /// Run folder (default: runs/NAME, after the configuration's file name; a run folder is its own).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) run: Option<PathBuf>,
    /// Train a run for each of these seeds, as in 1,2,3, in seed-1, seed-2, ... of the run folder (default: `seeds` of the
    /// configuration, else one run of its `seed`).
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', conflicts_with = "more_epochs")]
    pub(crate) seeds: Vec<u64>,
    /// Override a configuration key, as in --set optimizer.lr=0.05; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Make a finished run this many epochs longer. CONFIG is its folder. One that is not finished is resumed as it is.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["run", "dry_run"])]
    pub(crate) more_epochs: Option<u64>,
    /// Refuse a missing teacher. Otherwise it is trained first, from the configuration in teachers.NAME.config.
    #[arg(long, conflicts_with = "with_teachers")]
    pub(crate) no_teachers: bool,
    /// The default; accepted for commands of earlier versions.
    #[arg(long, hide = true)]
    pub(crate) with_teachers: bool,
    /// Train nothing; print the estimates of `iad-launch plan`.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Stop after this many steps of the run; the same command resumes it.
    #[arg(long, value_name = "STEPS")]
    pub(crate) stop_after_steps: Option<u64>,
    /// Trace the first steps of this session on all ranks (20 unless STEPS is given) into trace-STEP.json in the run folder;
    /// open it in chrome://tracing or ui.perfetto.dev.
    #[arg(long, value_name = "STEPS", num_args = 0..=1, require_equals = true, default_missing_value = "20",
        value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) trace: Option<u64>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}

impl Train {
    /// The meaning of `--dry-run`.
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            config: self.config.clone(),
            overrides: self.overrides.clone(),
            seeds: self.seeds.clone(),
            ranks: self.launch.ranks,
            gpu: None,
            image: None,
            classes: None,
            images: None,
            json: false,
        }
    }
}
