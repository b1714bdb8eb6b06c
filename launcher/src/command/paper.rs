//! `iad-launch paper TABLE`.

use std::path::PathBuf;

use clap::Args;
use trainer::config::Override;

use super::Where;

/// `iad-launch paper TABLE`
#[derive(Debug, Args)]
pub(crate) struct Paper {
    /// The table: a name in configs/paper, as in table2, or the path of such a file.
    pub(crate) table: PathBuf,
    /// Only list the rows: configuration, state and estimated cost. Needs no data.
    #[arg(long, conflicts_with = "show")]
    pub(crate) dry_run: bool,
    /// Only print the comparison, of the runs that are finished.
    #[arg(long)]
    pub(crate) show: bool,
    /// Only rows whose name, method or teacher holds this text, and their teachers; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// Run every row with these seeds, as in 1,2,3 (default: those of the table).
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    pub(crate) seeds: Vec<u64>,
    /// Change a key of all rows, as in --set epochs=2 (choose another folder with --runs); may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<Override>,
    /// The folder of the run folders.
    #[arg(long, value_name = "FOLDER", default_value = "runs/paper")]
    pub(crate) runs: PathBuf,
    /// Only the runs that others learn from.
    #[arg(long)]
    pub(crate) teachers: bool,
    /// Only the I-th of N parts, for array jobs: of the teachers with --teachers, else of the other runs.
    #[arg(long, value_name = "I/N")]
    pub(crate) job: Option<Part>,
    /// The speed that the estimate of GPU hours assumes; the paper's own Table 14 implies the default.
    #[arg(long, value_name = "TFLOP/S", default_value_t = 9.4, value_parser = positive)]
    pub(crate) tflops: f64,
    /// Also write the comparison as comma-separated values.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) csv: Option<PathBuf>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) place: Where,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "expected a positive number".into())
}

/// One of so many parts of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its number, from 1.
    number: usize,
    /// How many there are.
    of: usize,
}

impl Part {
    /// Whether the piece of work at this place belongs to it.
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
