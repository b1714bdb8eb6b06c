//! The run report as one HTML file without scripts or outside resources; must not know how numbers are computed.

use trainer::run::changes::flat;
use trainer::run::folder::RunFolder;

use super::data::RecordedRun;
use super::differing::differing;
use super::figures::figures;
use super::gallery::gallery;
use super::seeds::{OVER_SEEDS, grid_over_seeds, over_seeds};
use super::table::{shaded, table};
use super::{charts, effort, overview, summary};
use crate::draw::{Grid, NOTHING, escape};

const STYLE: &str = include_str!("style.css");

/// The page for these runs.
pub fn html(runs: &[RecordedRun]) -> String {
    let names: Vec<_> = runs.iter().map(|run| escape(&run.name)).collect();
    let title = names.join(", ");
    let mut body = format!("<h1>{title}</h1>\n");
    body.push_str(&summary(runs));
    body.push_str(&warnings(runs));
    body.push_str("<h2>Results</h2>\n");
    body.push_str(&table(&summary::results(runs), "Results"));
    body.push_str(
        "<p class=\"note\">Correct predictions in % ± binomial standard error, sqrt(p(1 − p)/n); where none or all are correct, the \
         bound of Wilson's 95 % interval in brackets. It covers the choice of the images only, not that a run with another seed would come out differently.</p>\n",
    );
    body.push_str(&seeds(runs));
    body.push_str(&table(&summary::extents(runs), "Size, progress and time"));
    body.push_str(
        "<p class=\"note\">Training time is the wall-clock time recorded for the training epochs, added up, or for the whole run \
         where the epochs have none; eps is the attack budget of the final evaluation.</p>\n",
    );
    body.push_str(&distillation(runs));
    body.push_str(&speed(runs));
    body.push_str(&curves(runs));
    body.push_str(&classes(runs));
    body.push_str(&gallery(runs));
    body.push_str(&differences(runs));
    body.push_str(&sources(runs));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

fn seeds(runs: &[RecordedRun]) -> String {
    let found = over_seeds(runs);
    if found.is_empty() {
        return String::new();
    }
    let grid = table(&grid_over_seeds(&found), "Results over seeds");
    format!(
        "{grid}<p class=\"note\">{OVER_SEEDS} Averaged are runs whose configurations differ in the seed alone.</p>\n"
    )
}

fn warnings(runs: &[RecordedRun]) -> String {
    let mut items: Vec<String> = summary::caveats(runs).iter().map(|caveat| escape(caveat)).collect();
    for run in runs {
        for (message, times) in &run.warnings {
            let often = if *times > 1 { format!(" ({times} times)") } else { String::new() };
            items.push(format!("{}: {}{often}", escape(&run.name), escape(message)));
        }
    }
    if items.is_empty() {
        return String::new();
    }
    format!("<div class=\"warnings\"><strong>Warnings</strong><ul><li>{}</li></ul></div>\n", items.join("</li><li>"))
}

fn distillation(runs: &[RecordedRun]) -> String {
    let grid = summary::distillation(runs);
    if grid.rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Distillation</h2>\n{}<p class=\"note\">Over the training images as they were used, against the student's \
         adversarial images: <b>A</b> teacher right on natural and adversarial; <b>B</b> right on natural only; \
         <b>C</b> wrong on natural; <b>D</b> wrong on natural but right on adversarial, contained in C. Alpha is the \
         trust in the teacher, its probability of the true class on the adversarial image to the power beta. A term's \
         share is its sum over the loss's sum, both over the epochs named. The rows cover the epochs since the last \
         term of the loss came in, and the last epoch. Epochs are numbered from 1 here, from 0 in the \
         configuration.</p>\n",
        table(&grid, "Distillation")
    )
}

fn speed(runs: &[RecordedRun]) -> String {
    let grid = effort::grid(runs);
    if grid.rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Speed</h2>\n{}<p class=\"note\">Over the training epochs; selection and evaluation are left out. Operations are those \
         of convolutions and linear layers, two for a multiply-add, over all ranks; the peak is what the ranks reach in products \
         of large matrices of the same type, or what the configuration names. Shares of the time are means over the ranks and add \
         up to it; communication is what no computation hides, waiting for slower ranks included.</p>\n",
        table(&grid, "Speed")
    )
}

fn curves(runs: &[RecordedRun]) -> String {
    let (of_paper, of_training) = (charts::of_paper(runs), charts::of_training(runs));
    if of_paper.is_empty() && of_training.is_empty() {
        return "<p>No curves have been recorded.</p>\n".to_owned();
    }
    let note = "<p class=\"note\">A gap is a value that was not a number. Vertical axes need not start at 0. Each figure has its \
                numbers below it.</p>\n";
    let mut text = String::new();
    for (title, charts, first) in
        [("Teacher and student", &of_paper, 1), ("Training", &of_training, of_paper.len() + 1)]
    {
        if !charts.is_empty() {
            text += &format!("<h2>{title}</h2>\n{note}{}", figures(charts, first));
        }
    }
    text
}

fn summary(runs: &[RecordedRun]) -> String {
    let made: Vec<String> = runs.iter().filter_map(overview::made).map(|line| escape(&line)).collect();
    let said: String = runs.iter().map(|run| format!("<p>{}</p>\n", escape(&overview::sentences(run)))).collect();
    let mut text = format!("<p class=\"made\">{}</p>\n<h2>Summary</h2>\n{said}", made.join("<br>"));
    let grid = overview::beside_teachers(runs);
    if !grid.rows.is_empty() {
        let protocols: Vec<String> = runs.iter().filter_map(overview::protocol).map(|line| escape(&line)).collect();
        text += &table(&grid, "Student beside teacher");
        text += &format!(
            "<p class=\"note\">Correct predictions in %, with Wilson's 95 % intervals in brackets. A teacher is shown where its run folder has an evaluation on the same images \
             within the same radius. {}</p>\n",
            protocols.join(" ")
        );
    }
    text
}

/// The keys in which several runs differ.
fn differences(runs: &[RecordedRun]) -> String {
    if runs.len() < 2 {
        return String::new();
    }
    let keys = |run: &RecordedRun| RunFolder::at(&run.folder).config().map(|config| flat(&config)).ok();
    let Some(configs) = runs.iter().map(keys).collect::<Option<Vec<_>>>() else { return String::new() };
    let row = |(key, values): (String, Vec<Option<String>>)| {
        std::iter::once(key).chain(values.into_iter().map(|value| value.unwrap_or(NOTHING.into()))).collect()
    };
    let columns = std::iter::once("key".to_owned()).chain(runs.iter().map(|run| run.name.clone())).collect();
    let grid = Grid { columns, rows: differing(&configs).into_iter().map(row).collect() };
    if grid.rows.is_empty() {
        return "<h2>Differing keys</h2>\n<p>The runs have equal configurations.</p>\n".into();
    }
    format!("<h2>Differing keys</h2>\n{}", shaded(&grid, "Differing keys", &[], "keys"))
}

/// The predictions by class of each run.
fn classes(runs: &[RecordedRun]) -> String {
    let mut text = String::new();
    for (run, confusion) in runs.iter().filter_map(|run| Some((run, run.confusion.as_ref()?))) {
        let name = escape(&run.name);
        if let Some((grid, shares)) = confusion.matrix() {
            text += &format!("<p>{name}: images by label and prediction, without an attack.</p>\n");
            text += &shaded(&grid, &format!("Confusion of {}", run.name), &shares, "heat");
        }
        let grid = table(&confusion.by_class(), &format!("Accuracy by class of {}", run.name));
        text += &format!("<details><summary>{name}: accuracy by class under each attack</summary>{grid}</details>\n");
    }
    if text.is_empty() { text } else { format!("<h2>Confusion by class</h2>\n{text}") }
}

fn sources(runs: &[RecordedRun]) -> String {
    let mut folded = String::new();
    for run in runs {
        for (label, text) in [("configuration", &run.config), ("environment", &run.environment)] {
            if let Some(text) = text {
                let (name, text) = (escape(&run.name), escape(text));
                folded.push_str(&format!("<details><summary>{name}: {label}</summary><pre>{text}</pre></details>\n"));
            }
        }
    }
    if folded.is_empty() { folded } else { format!("<h2>Configuration and environment</h2>\n{folded}") }
}
