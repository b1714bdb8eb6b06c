//! Charts as numbered figures of the page, with captions and the numbers behind them.

use super::table::table;
use crate::draw::{Chart, document, escape};

const WIDTH: f64 = 560.0;

/// The figures, numbered from `first` on.
pub fn figures(charts: &[(Chart, String)], first: usize) -> String {
    let drawn: String = charts.iter().enumerate().map(|(index, one)| figure(one, first + index)).collect();
    format!("<div class=\"charts\">\n{drawn}</div>\n")
}

fn figure((chart, caption): &(Chart, String), number: usize) -> String {
    let rows = chart.legend_rows(WIDTH);
    let picture = document(WIDTH, Chart::height(rows), &chart.description(), &chart.body(WIDTH, rows));
    let (grid, shortened) = chart.table();
    let note = if shortened { " (some rows; metrics.jsonl has all)" } else { "" };
    let numbers = table(&grid, &format!("Numbers of figure {number}"));
    format!(
        "<figure id=\"figure-{number}\">\n{picture}<figcaption><b>Figure {number}.</b> {}</figcaption>\n\
         <details><summary>Numbers of figure {number}{note}</summary>{numbers}</details>\n</figure>\n",
        escape(caption)
    )
}
