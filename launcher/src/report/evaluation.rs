//! One evaluation as lines for the terminal.

use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use trainer::config::Norm;
use trainer::evaluate::{Accuracy, Evaluation, NetworkSpec};

use super::percentage::with_uncertainty;
use crate::console::{Out, counted, duration};

/// Prints one evaluation, which is in `file`.
///
/// # Errors
/// The terminal cannot be written to.
pub fn print_evaluation(evaluation: &Evaluation, file: &Path) -> Result<()> {
    let mut out = Out;
    let Evaluation { run, weights, step, images, ranks, .. } = evaluation;
    let trained = match evaluation.network {
        NetworkSpec::Model(_) => format!("{weights} weights after {step} steps"),
        NetworkSpec::Script(_) => "a TorchScript network".into(),
    };
    writeln!(out, "{run}, {trained}, {images} test images, on {}", counted(*ranks as u64, "rank"))?;
    if evaluation.norm != Norm::Linf {
        writeln!(out, "  attacks of norm {}, eps {}", evaluation.norm, evaluation.eps)?;
    }
    let mut line = |indent: &str, Accuracy { name, correct, of }: &Accuracy, seconds: Option<&f64>| {
        let percent = with_uncertainty(*correct, *of).unwrap_or_else(|| "no images".into());
        let width = 12 - indent.len();
        let seconds = seconds.map(|seconds| format!("  {}", duration(*seconds))).unwrap_or_default();
        writeln!(out, "  {indent}{name:<width$} {percent:>14} %   ({correct} of {of}){seconds}")
    };
    for attack in &evaluation.attacks {
        for component in evaluation.components.get(&attack.name).into_iter().flatten() {
            line("> ", component, None)?;
        }
        line("", attack, evaluation.seconds.get(&attack.name))?;
    }
    line("", &evaluation.worst_case, None)?;
    if evaluation.autoattack_standard == Some(false) {
        writeln!(out, "  AutoAttack is not the standard version here: fewer classes, or evaluation.autoattack is set")?;
    }
    writeln!(out, "written to {}", file.display())?;
    Ok(())
}
