//! The run report as one HTML file without scripts or outside resources; must not know how numbers are worked out.

use super::{
    chart::{Chart, document},
    curves,
    data::Run,
    effort,
    markup::escape,
    summary::{self, Grid},
};

const CHART_WIDTH: f64 = 560.0;
const STYLE: &str = "
:root { color-scheme: light; }
body { margin: 2rem auto; max-width: 1160px; padding: 0 1rem; background: #fff; color: #222;
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { font-weight: 600; background: #f6f6f6; }
th:first-child, td:first-child { text-align: left; }
.note { color: #555; font-size: .9rem; max-width: 60rem; }
.warnings { background: #fff4e0; border-left: 5px solid #d55e00; padding: .6rem 1rem; margin: 1rem 0; }
.warnings ul { margin: .3rem 0 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); gap: 1rem; align-items: end; }
.charts svg { width: 100%; height: auto; display: block; }
details { margin: .4rem 0; }
summary { cursor: pointer; }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .85rem; }
";

/// The page for these runs.
pub fn html(runs: &[Run]) -> String {
    let names: Vec<_> = runs.iter().map(|run| escape(&run.name)).collect();
    let title = names.join(", ");
    let mut body = format!("<h1>{title}</h1>\n");
    body.push_str(&warnings(runs));
    body.push_str("<h2>Results</h2>\n");
    body.push_str(&table(&summary::results(runs)));
    body.push_str(
        "<p class=\"note\">Correct predictions in % ± binomial standard error, sqrt(p(1 − p)/n). It covers the choice of \
         the images only, not that a run with another seed would come out differently.</p>\n",
    );
    body.push_str(&table(&summary::extents(runs)));
    body.push_str(
        "<p class=\"note\">Training time is the wall-clock time recorded for the training epochs, added up, or for the whole run \
         where the epochs have none; eps is the attack budget of the final evaluation.</p>\n",
    );
    body.push_str(&distillation(runs));
    body.push_str(&speed(runs));
    body.push_str(&charts(runs));
    body.push_str(&sources(runs));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

fn warnings(runs: &[Run]) -> String {
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

fn distillation(runs: &[Run]) -> String {
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
        table(&grid)
    )
}

fn speed(runs: &[Run]) -> String {
    let grid = effort::grid(runs);
    if grid.rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Speed</h2>\n{}<p class=\"note\">Over the training epochs; selection and evaluation are left out. Operations are those \
         of convolutions and linear layers, two for a multiply-add, over all ranks; the peak is what the ranks reach in products \
         of large matrices of the same type, or what the configuration names. Shares of the time are means over the ranks and add \
         up to it; communication is what no computation hides, waiting for slower ranks included.</p>\n",
        table(&grid)
    )
}

fn charts(runs: &[Run]) -> String {
    let charts = curves::all(runs);
    if charts.is_empty() {
        return "<p>No curves have been recorded.</p>\n".to_owned();
    }
    let drawn: String = charts
        .iter()
        .map(|chart| {
            let rows = chart.legend_rows(CHART_WIDTH);
            document(CHART_WIDTH, Chart::height(rows), &chart.title, &chart.body(CHART_WIDTH, rows))
        })
        .collect();
    format!(
        "<h2>Curves</h2>\n<p class=\"note\">Values as recorded, not smoothed; a gap is a value that was not a \
         number. Vertical axes need not start at 0.</p>\n<div class=\"charts\">\n{drawn}</div>\n"
    )
}

fn sources(runs: &[Run]) -> String {
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

fn table(grid: &Grid) -> String {
    let row = |tag: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = grid.rows.iter().map(|cells| row("td", cells)).collect();
    format!("<div class=\"wide\"><table>\n{}{rows}</table></div>\n", row("th", &grid.columns))
}
