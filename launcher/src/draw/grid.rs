//! Grids as aligned plain text for a terminal.

/// The text of a cell without a number.
pub const NOTHING: &str = "–";

/// Rows of cells under named columns.
#[derive(Debug, Default)]
pub struct Grid {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// The grid with its columns as rows, because a page is not wide enough for many columns. One without rows stays empty.
    pub fn turned(self) -> Self {
        if self.rows.is_empty() {
            return Self::default();
        }
        let lines: Vec<Vec<String>> = std::iter::once(self.columns).chain(self.rows).collect();
        let turned = (0..lines[0].len()).map(|column| lines.iter().map(|line| line[column].clone()).collect());
        let mut turned: Vec<Vec<String>> = turned.collect();
        Self { columns: turned.remove(0), rows: turned }
    }
}

/// The grid with aligned columns. Columns beyond `width` go to further blocks that repeat the first column.
pub fn text(grid: &Grid, width: usize) -> String {
    let widths: Vec<usize> = (0..grid.columns.len())
        .map(|column| lines(grid).map(|cells| cells[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut blocks = String::new();
    let mut next = 1;
    while blocks.is_empty() || next < widths.len() {
        let mut taken = widths[0];
        let first = next;
        // A block takes at least one column of any width, so that the loop ends.
        while next < widths.len() && (next == first || taken + 2 + widths[next] <= width) {
            taken += 2 + widths[next];
            next += 1;
        }
        if !blocks.is_empty() {
            blocks.push('\n');
        }
        for cells in lines(grid) {
            let line: String = std::iter::once(0)
                .chain(first..next)
                .map(|column| format!("{:<pad$}", cells[column], pad = widths[column] + 2))
                .collect();
            blocks.push_str(line.trim_end());
            blocks.push('\n');
        }
    }
    blocks
}

fn lines(grid: &Grid) -> impl Iterator<Item = &Vec<String>> {
    std::iter::once(&grid.columns).chain(&grid.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(lines: &[&[&str]]) -> Grid {
        let mut lines = lines.iter().map(|cells| cells.iter().map(|cell| (*cell).to_owned()).collect());
        Grid { columns: lines.next().unwrap(), rows: lines.collect() }
    }

    #[test]
    fn columns_are_aligned_by_characters() {
        let shown = text(&grid(&[&["run", "natural", "fgsm"], &["teacher", "87.21 ± 0.33", "–"]]), 100);
        assert_eq!(shown, "run      natural       fgsm\nteacher  87.21 ± 0.33  –\n");
    }

    #[test]
    fn wide_grids_go_on_below() {
        let shown = text(&grid(&[&["run", "aaaa", "bbbb"], &["r", "1", "2"]]), 10);
        assert_eq!(shown, "run  aaaa\nr    1\n\nrun  bbbb\nr    2\n");
    }
}
