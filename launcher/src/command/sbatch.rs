//! `iad-launch sbatch CONFIG`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use trainer::config::Override;

/// `iad-launch sbatch CONFIG`
#[derive(Debug, Args)]
pub(crate) struct Sbatch {
    /// Configuration of the run.
    pub(crate) config: PathBuf,
    /// Number of nodes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) nodes: u16,
    /// GPUs, and so ranks, of each node; 0 for nodes without GPUs.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) gpus_per_node: u16,
    /// Ranks of each node (default: one for each GPU, or 1).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) ranks_per_node: Option<u16>,
    /// Cores of each rank.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) cores: u16,
    /// Time limit in hours and minutes, as in 4:00 (default: 4:00, or what the plan for --gpu says, up to 24:00).
    #[arg(long, value_name = "H:MM", value_parser = limit)]
    pub(crate) time: Option<u32>,
    /// GPU by whose plan the time limit is set: h100, a100, or a file as in configs/clusters.
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Option<String>,
    /// Scheduler to write for.
    #[arg(long, value_enum, default_value_t = Scheduler::Slurm)]
    pub(crate) scheduler: Scheduler,
    /// Start the ranks with mpirun instead of srun; PBS and LSF always do.
    #[arg(long)]
    pub(crate) mpirun: bool,
    /// A line for the scheduler as it is, as in --line=--partition=gpu; may be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) line: Vec<String>,
    /// Override a configuration key, as in --set optimizer.lr=0.05; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Train a run for each of these seeds, as in 1,2,3, one after another in the same job (default: `seeds` of the
    /// configuration, else one run of its `seed`).
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    pub(crate) seeds: Vec<u64>,
    /// Run folder (default: runs/NAME, after the configuration's file name).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) run: Option<PathBuf>,
    /// File to write the script to (default: print it; with --submit, NAME.slurm, NAME.pbs or NAME.lsf).
    #[arg(long, value_name = "FILE")]
    pub(crate) to: Option<PathBuf>,
    /// Hand the script to the scheduler.
    #[arg(long)]
    pub(crate) submit: bool,
}

/// A scheduler of clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scheduler {
    /// SLURM.
    Slurm,
    /// PBS Professional or OpenPBS.
    Pbs,
    /// IBM Spectrum LSF.
    Lsf,
}

impl Scheduler {
    /// The ending of a script's name.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Scheduler::Slurm => "slurm",
            Scheduler::Pbs => "pbs",
            Scheduler::Lsf => "lsf",
        }
    }
}

/// Minutes of `H:MM`.
fn limit(text: &str) -> Result<u32, String> {
    let parts = text.split_once(':').and_then(|(hours, minutes)| {
        Some((hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok().filter(|minutes| *minutes < 60)?))
    });
    let minutes = parts.and_then(|(hours, minutes)| hours.checked_mul(60)?.checked_add(minutes));
    minutes.filter(|minutes| *minutes >= 5).ok_or_else(|| "expected hours and minutes, 0:05 or more, as in 4:00".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_hours_and_minutes() {
        assert_eq!([limit("4:00"), limit("0:05"), limit("72:30")], [Ok(240), Ok(5), Ok(4350)]);
        for text in ["4", "0:04", "1:60", "x:00", "-1:00"] {
            assert!(limit(text).is_err(), "{text}");
        }
    }
}
