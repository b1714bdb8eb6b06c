//! `iad-launch eval RUN_OR_WEIGHTS`.

use std::path::PathBuf;

use clap::Args;
use trainer::config::{ClassMatching, Dtype, Norm, Pixels};

use super::launch::LaunchArgs;
use super::weights::Weights;

/// `iad-launch eval RUN_OR_WEIGHTS`
#[derive(Debug, Args)]
pub(crate) struct Eval {
    /// Run folder, weights file (with --data), or any network as a TorchScript file (with --data).
    #[arg(value_name = "RUN_OR_WEIGHTS")]
    pub(crate) run: PathBuf,
    /// Weights to evaluate: best, final, latest (the newest checkpoint), ema or swa (default: the first of best, final and
    /// latest that exists).
    #[arg(long, value_enum)]
    pub(crate) weights: Option<Weights>,
    /// Attacks, separated by commas: natural, fgsm, fgsm_rs, pgdN, cw_inf, apgd_ce, apgd_t, fab_t, square, autoattack,
    /// fast, adaptive (adaptiveN for N starts) or paper (default: evaluation.suite of the run).
    #[arg(long, value_name = "ATTACKS", value_delimiter = ',')]
    pub(crate) suite: Option<Vec<String>>,
    /// Evaluate only the first COUNT test images (default: evaluation.images of the run, or all).
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) images: Option<u32>,
    /// Use the test split of this container instead.
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// Match the network's outputs with the classes of the images by name (where both have names) or by order.
    #[arg(long, value_name = "HOW", default_value_t)]
    pub(crate) match_classes: ClassMatching,
    /// Override the norm of the attacks: linf or l2. Radius and step become the defaults of that norm.
    #[arg(long, value_name = "NORM")]
    pub(crate) norm: Option<Norm>,
    /// Override the attack radius, as in 4/255, or 0.5 in L2. Several, as in 0,2/255,4/255, are evaluated one after another, each
    /// into a file of its own, and the report draws their curve; 0 is the natural accuracy.
    #[arg(long, value_name = "LENGTHS", value_delimiter = ',', value_parser = radius)]
    pub(crate) eps: Vec<Pixels>,
    /// Override the batch size; a multiple of 16.
    #[arg(long, value_name = "ROWS")]
    pub(crate) batch: Option<usize>,
    /// Override the number format of the forward passes: float32, tf32 or bfloat16.
    #[arg(long, value_name = "FORMAT", value_parser = precision)]
    pub(crate) precision: Option<Dtype>,
    /// Override the seed of the attacks.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Folder for the results (default: the run folder, or the folder of the weights file).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Also write the results as comma-separated values.
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) csv: Option<PathBuf>,
    /// Also save one adversarial image per test image.
    #[arg(long, value_name = "FILE.h5")]
    pub(crate) save_adversarial: Option<PathBuf>,
    /// Where to compute.
    #[command(flatten)]
    pub(crate) launch: LaunchArgs,
}

/// A radius; 0 is allowed here alone.
fn radius(text: &str) -> Result<Pixels, String> {
    if text.trim() == "0" { Ok(Pixels(0.0)) } else { text.parse::<Pixels>().map_err(|error| error.to_string()) }
}

fn precision(text: &str) -> Result<Dtype, String> {
    let formats = [Dtype::Float32, Dtype::Tf32, Dtype::Bfloat16];
    let found = formats.into_iter().find(|format| format.name() == text);
    found.ok_or_else(|| "expected float32, tf32 or bfloat16".into())
}
