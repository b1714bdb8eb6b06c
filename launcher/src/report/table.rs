//! Grids of text as HTML tables.

use crate::draw::{Grid, escape};

/// A table in a box of its own, in which wide ones scroll. The first cell of each row is its head.
pub fn table(grid: &Grid, caption: &str) -> String {
    shaded(grid, caption, &[], "")
}

/// A table whose cells after the first are shaded by `shares`, 0 to 1 of each.
pub fn shaded(grid: &Grid, caption: &str, shares: &[Vec<f64>], class: &str) -> String {
    let heads: String = grid.columns.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escape(cell))).collect();
    let row = |(number, cells): (usize, &Vec<String>)| {
        let shade = |column: usize| {
            let share = shares.get(number).and_then(|row| row.get(column));
            share.map_or(String::new(), |share| {
                format!(" style=\"background: rgba(var(--heat), {:.3})\"", 0.6 * share.clamp(0.0, 1.0))
            })
        };
        let head = cells.first().map_or(String::new(), |cell| format!("<th scope=\"row\">{}</th>", escape(cell)));
        let rest = cells.iter().skip(1).enumerate();
        let rest: String = rest.map(|(column, cell)| format!("<td{}>{}</td>", shade(column), escape(cell))).collect();
        format!("<tr>{head}{rest}</tr>\n")
    };
    let rows: String = grid.rows.iter().enumerate().map(row).collect();
    let caption = escape(caption);
    format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\"><table class=\"{class}\">\n\
         <thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n"
    )
}
