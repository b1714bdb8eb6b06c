//! The run report: a page, a figure and a table from run folders alone; must not know how a run is made.

mod axis;
pub mod chart;
mod curves;
pub mod data;
mod effort;
mod markup;
mod named;
mod page;
pub mod summary;
pub mod table;
mod teaching;
mod thin;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use trainer::evaluate::Accuracy;
use trainer::evaluation::Evaluation;
use trainer::folder::RunFolder;

use crate::console::duration;
use chart::{Chart, document};

const FIGURE_WIDTH: f64 = 900.0;
const TERMINAL_WIDTH: usize = 100;
const CASES: &str = "\
A: teacher right on natural and adversarial, B: on natural only, C: wrong on natural,
D: wrong on natural but right on adversarial (contained in C), of the training images.
The last columns are each term's share of the loss.
";

/// Writes one self-contained HTML page that compares the runs in `folders`.
///
/// # Errors
/// When a folder has no readable `metrics.jsonl`, a file in it is damaged, or `page` cannot be written.
pub fn write_page(folders: &[PathBuf], page: &Path) -> Result<()> {
    write(page, &page::html(&data::read(folders)?))
}

/// Writes one standalone SVG with the main curves of the runs in `folders`, 900 pixels wide.
///
/// # Errors
/// As [`write_page`], and when the runs have recorded no curve yet.
pub fn write_figure(folders: &[PathBuf], figure: &Path) -> Result<()> {
    let runs = data::read(folders)?;
    let charts = curves::main(&runs);
    if charts.is_empty() {
        bail!("{} has no curves to draw yet: no epoch has finished", folders[0].display());
    }
    let names: Vec<_> = runs.iter().map(|run| run.name.as_str()).collect();
    let mut body = String::new();
    let mut top = 0.0;
    for pair in charts.chunks(2) {
        // An odd last chart takes the whole width.
        let width = FIGURE_WIDTH / pair.len() as f64;
        let rows = pair.iter().map(|chart| chart.legend_rows(width)).max().unwrap_or(0);
        for (column, chart) in pair.iter().enumerate() {
            let left = column as f64 * width;
            body.push_str(&format!("<g transform=\"translate({left} {top})\">\n{}</g>\n", chart.body(width, rows)));
        }
        top += Chart::height(rows) + 8.0;
    }
    write(figure, &document(FIGURE_WIDTH, top, &names.join(", "), &body))
}

/// The results of the runs in `folders` as plain text, and their distillation figures where there are any.
///
/// # Errors
/// As [`write_page`].
pub fn table(folders: &[PathBuf]) -> Result<String> {
    let runs = data::read(folders)?;
    let mut text = table::text(&summary::results(&runs), TERMINAL_WIDTH);
    let mut distillation = summary::distillation(&runs);
    // All epochs since the last term came in; the page also has the last epoch alone.
    let mut seen = std::collections::BTreeSet::new();
    distillation.rows.retain(|cells| seen.insert(cells[0].clone()));
    if !distillation.rows.is_empty() {
        text.push('\n');
        text.push_str(&table::text(&distillation, TERMINAL_WIDTH));
        text.push_str(CASES);
    }
    let caveats = summary::caveats(&runs);
    if !caveats.is_empty() {
        text.push_str(&format!("\n{}\n", caveats.join("\n")));
    }
    Ok(text)
}

/// Prints the results of the runs in `folders` and writes their page (by default report.html in the last of them) and,
/// if asked for, their figure.
///
/// # Errors
/// As [`write_page`] and [`write_figure`].
pub fn run(folders: &[PathBuf], page: Option<&Path>, figure: Option<&Path>) -> Result<()> {
    for folder in folders {
        // Says so where a folder is no run.
        RunFolder::at(folder).config()?;
    }
    let last = folders.last().context("no run folder was given")?;
    let page = page.map_or_else(|| last.join("report.html"), Path::to_path_buf);
    write_page(folders, &page)?;
    let mut out = std::io::stdout();
    write!(out, "{}", table(folders)?)?;
    writeln!(out, "\nreport: {}", page.display())?;
    if let Some(figure) = figure {
        write_figure(folders, figure)?;
        writeln!(out, "figure: {}", figure.display())?;
    }
    Ok(())
}

/// Prints one evaluation, which stands in `file`.
///
/// # Errors
/// The terminal cannot be written to.
pub fn print_evaluation(evaluation: &Evaluation, file: &Path) -> Result<()> {
    let mut out = std::io::stdout();
    let Evaluation { run, weights, step, images, ranks, .. } = evaluation;
    writeln!(out, "{run}, {weights} weights after {step} steps, {images} test images, on {ranks} rank(s)")?;
    let mut line = |indent: &str, Accuracy { name, correct, of }: &Accuracy, seconds: Option<&f64>| {
        let (percent, error) = summary::percentage(*correct, *of).unwrap_or((f64::NAN, f64::NAN));
        let width = 12 - indent.len();
        let seconds = seconds.map(|seconds| format!("  {}", duration(*seconds))).unwrap_or_default();
        writeln!(out, "  {indent}{name:<width$} {percent:6.2} ± {error:.2} %   ({correct} of {of}){seconds}")
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

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
