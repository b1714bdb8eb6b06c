//! The run report: a page, a figure and a table from run folders alone; must not know how a run is made.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use trainer::run::folder::RunFolder;

use super::forms::results_as;
use super::seeds::{OVER_SEEDS, expanded, grid_over_seeds, over_seeds};
use super::{charts, data, page, summary};
use crate::command::Report;
use crate::console::{Out, say};
use crate::draw::{self, Chart, document};

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
    let charts = charts::main(&runs);
    if charts.is_empty() {
        bail!("{} has no curves to draw yet: no epoch has finished", folders[0].display());
    }
    let names: Vec<_> = runs.iter().map(|run| run.name.as_str()).collect();
    let mut body = String::new();
    let mut top = 0.0;
    for pair in charts.chunks(2) {
        // An odd last chart takes the whole width.
        let width = FIGURE_WIDTH / pair.len() as f64;
        let rows = pair.iter().map(|chart| chart.head_rows(width)).max().unwrap_or(0);
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
    let mut text = draw::text(&summary::results(&runs), TERMINAL_WIDTH);
    let seeds = over_seeds(&runs);
    if !seeds.is_empty() {
        text += &format!("\n{}{OVER_SEEDS}\n", draw::text(&grid_over_seeds(&seeds), TERMINAL_WIDTH));
    }
    let mut distillation = summary::distillation(&runs);
    // All epochs since the last term became active; the page also has the last epoch alone.
    let mut seen = std::collections::BTreeSet::new();
    distillation.rows.retain(|cells| seen.insert(cells[0].clone()));
    if !distillation.rows.is_empty() {
        text.push('\n');
        text.push_str(&draw::text(&distillation, TERMINAL_WIDTH));
        text.push_str(CASES);
    }
    let caveats = summary::caveats(&runs);
    if !caveats.is_empty() {
        text.push_str(&format!("\n{}\n", caveats.join("\n")));
    }
    Ok(text)
}

/// `iad-launch report`: prints the results, in the form that was asked for, and writes page and figure.
///
/// # Errors
/// As [`run`].
pub fn run_command(command: &Report) -> Result<()> {
    let Report { runs, page, figure, .. } = command;
    let Some(form) = command.form() else { return run(runs, page.as_deref(), figure.as_deref()) };
    let runs = &expanded(runs);
    // Fails if a folder is not a run.
    runs.iter().try_for_each(|run| RunFolder::at(run).config().map(drop))?;
    write!(Out, "{}", results_as(runs, form)?)?;
    page.as_ref().map_or(Ok(()), |page| write_page(runs, page))?;
    figure.as_ref().map_or(Ok(()), |figure| write_figure(runs, figure))
}

/// Prints the results of the runs in `folders` and writes their page (by default report.html in the last of them) and,
/// if asked for, their figure.
///
/// # Errors
/// As [`write_page`] and [`write_figure`].
pub fn run(folders: &[PathBuf], page: Option<&Path>, figure: Option<&Path>) -> Result<()> {
    let last = folders.last().context("no run folder was given")?;
    let page = page.map_or_else(|| last.join("report.html"), Path::to_path_buf);
    let folders = &expanded(folders);
    for folder in folders {
        // Fails if a folder is not a run.
        RunFolder::at(folder).config()?;
    }
    write_page(folders, &page)?;
    let mut out = Out;
    write!(out, "{}", table(folders)?)?;
    writeln!(out, "\nreport: {}", page.display())?;
    if let Some(figure) = figure {
        write_figure(folders, figure)?;
        writeln!(out, "figure: {}", figure.display())?;
    }
    Ok(())
}

/// Prints the results of the run in `folder`, or of the runs of several seeds there, and writes its page if the disk takes it: the results are whole without it.
///
/// # Errors
/// A file of the folder is missing or damaged.
pub fn show_results(folder: &Path) -> Result<()> {
    let folders = expanded(&[folder.to_path_buf()]);
    let page = folder.join("report.html");
    let written = write_page(&folders, &page);
    let mut out = Out;
    write!(out, "{}", table(&folders)?)?;
    match written {
        Ok(()) => writeln!(out, "\nreport: {}", page.display())?,
        Err(error) => say(&format!("warning: {error:#}")),
    }
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
