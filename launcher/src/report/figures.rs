//! Charts as numbered figures of the page, with captions and the numbers behind them.

use super::table::table;
use crate::draw::{Chart, document, escape};

/// The widths of a chart's two forms: a page shows the second one where it is narrow, so that letters stay readable.
const FORMS: [(&str, f64); 2] = [("broad", 560.0), ("narrow", 350.0)];

/// The figures, numbered from `first` on.
pub fn figures(charts: &[(Chart, String)], first: usize) -> String {
    let drawn: String = charts.iter().enumerate().map(|(index, one)| figure(one, first + index)).collect();
    format!("<div class=\"charts\">\n{drawn}</div>\n")
}

fn figure((chart, caption): &(Chart, String), number: usize) -> String {
    let drawn = |(class, width): (&str, f64)| {
        let rows = chart.head_rows(width);
        let picture = document(width, Chart::height(rows), &chart.description(), &chart.body(width, rows));
        format!("<div class=\"{class}\">{picture}</div>")
    };
    let picture: String = FORMS.into_iter().map(drawn).collect();
    let (grid, shortened) = chart.table();
    let note = if shortened { " (some rows; metrics.jsonl has all)" } else { "" };
    let numbers = table(&grid, &format!("Numbers of figure {number}"));
    format!(
        "<figure id=\"figure-{number}\">\n{picture}<figcaption><b>Figure {number}.</b> {}</figcaption>\n\
         <details><summary>Numbers of figure {number}{note}</summary>{numbers}</details>\n</figure>\n",
        escape(caption)
    )
}
