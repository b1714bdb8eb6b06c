//! `iad-launch paper TABLE`.

use std::path::PathBuf;

use clap::Args;
use trainer::config::Override;

use super::launch::LaunchArgs;

/// `iad-launch paper TABLE`
#[derive(Debug, Args)]
pub(crate) struct Paper {
    /// Table: a name in configs/paper, as in table2, or a path.
    pub(crate) table: PathBuf,
    /// Only list the rows with configuration, state and estimated cost; needs no data.
    #[arg(long, conflicts_with = "show")]
    pub(crate) dry_run: bool,
    /// Only print the comparison for the finished runs.
    #[arg(long)]
    pub(crate) show: bool,
    /// Select rows whose name, method or teacher is this text, or contains it where none is it, and their teachers; may be
    /// repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// Seeds for every row, as in 1,2,3 (default: the seeds of the table).
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    pub(crate) seeds: Vec<u64>,
    /// Override a configuration key of all rows, as in --set epochs=2 (use it with another --runs folder); may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// Folder that contains the run folders.
    #[arg(long, value_name = "FOLDER", default_value = "runs/paper")]
    pub(crate) runs: PathBuf,
    /// Train only the teachers.
    #[arg(long)]
    pub(crate) teachers: bool,
    /// Train only part I of N, for array jobs: of the teachers with --teachers, else of the other runs.
    #[arg(long, value_name = "I/N")]
    pub(crate) job: Option<Part>,
    /// Speed for the estimate of GPU hours; the default follows from the paper's Table 14.
    #[arg(long, value_name = "TFLOP/S", default_value_t = 9.4, value_parser = positive)]
    pub(crate) tflops: f64,
    /// Also write the comparison as comma-separated values.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) csv: Option<PathBuf>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a positive number".into())
}

/// One of several equal parts of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its number, from 1.
    number: usize,
    /// The number of parts.
    of: usize,
}

impl Part {
    /// Whether the piece of work at `index` belongs to this part.
    pub(crate) fn takes(self, index: usize) -> bool {
        index % self.of == self.number - 1
    }
}

impl std::str::FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(one, all)| Some((one.parse().ok()?, all.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err("expected I/N with I from 1 to N, as in 2/8".into()),
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "{}/{}", self.number, self.of)
    }
}
