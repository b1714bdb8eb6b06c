//! The dry run of a table: its runs, their progress and their cost.

use super::cost::Costs;
use super::plan::Chosen;
use super::results::RunState;
use super::table::{PaperTable, PlannedRun, Row};
use crate::console::counted;
use crate::draw::{Grid, NOTHING, text};

/// Wide enough for every row to fit on one line.
const WIDTH: usize = 140;

/// The runs as a table in plain text, with totals for a device of this many TFLOP/s.
///
/// # Errors
/// A run folder is damaged.
pub(super) fn listing(table: &PaperTable, chosen: &Chosen, tflops: f64) -> anyhow::Result<String> {
    let columns = ["run", "method", "teacher", "config", "state", "PFLOP", "GPU hours"];
    let mut grid = Grid { columns: columns.map(str::to_owned).into(), rows: vec![] };
    let (mut all, mut left, mut known) = (0.0, 0.0, true);
    let mut costs = Costs::default();
    for &index in &chosen.with_teachers {
        let row = &table.rows[index];
        for run in &row.runs {
            let state = RunState::of(&run.job)?;
            let flop = row.size.as_ref().map(|size| costs.flop(&run.job.config, size));
            known &= flop.is_some();
            all += flop.unwrap_or(0.0);
            left += flop.unwrap_or(0.0) * share_left(state, run);
            grid.rows.push(line(row, run, state, flop, tflops));
        }
    }
    let shown = chosen.rows.iter().filter(|&&row| table.rows[row].shown).count();
    let runs = grid.rows.len();
    let mut text = format!("{}\n\n{}\n", table.title, text_of(&grid));
    text +=
        &format!("{} of the table, {} with their teachers", counted(shown as u64, "row"), counted(runs as u64, "run"));
    if all > 0.0 {
        let partly = if known { "" } else { ", without those of unknown size" };
        text += &format!(
            ": {} ({:.0} GPU hours at {tflops} TFLOP/s){partly}; left to do: {} ({:.0} GPU hours)\n\
             PFLOP are those of training and of choosing the best weights, 2 for a multiply-add; the final evaluation is \
             not counted.\n",
            flop_text(all),
            hours(all, tflops),
            flop_text(left),
            hours(left, tflops),
        );
    } else {
        text.push('\n');
    }
    Ok(text)
}

fn text_of(grid: &Grid) -> String {
    text(grid, WIDTH)
}

fn line(row: &Row, run: &PlannedRun, state: RunState, flop: Option<f64>, tflops: f64) -> Vec<String> {
    let config = &run.job.config;
    let number = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
    vec![
        run.name.clone(),
        row.method.clone(),
        row.teacher.clone(),
        config.hash()[..12].to_string(),
        state.text(config.epochs),
        number(flop.map(|flop| format!("{:.1}", flop / 1e15))),
        number(flop.map(|flop| format!("{:.1}", hours(flop, tflops)))),
    ]
}

fn share_left(state: RunState, run: &PlannedRun) -> f64 {
    match state {
        RunState::Finished => 0.0,
        RunState::Begun(done) => 1.0 - done as f64 / run.job.config.epochs as f64,
        RunState::Missing | RunState::Other => 1.0,
    }
}

fn hours(flop: f64, tflops: f64) -> f64 {
    flop / (tflops * 1e12) / 3600.0
}

fn flop_text(flop: f64) -> String {
    if flop >= 1e18 { format!("{:.2} EFLOP", flop / 1e18) } else { format!("{:.1} PFLOP", flop / 1e15) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_shown_in_units_that_fit() {
        assert_eq!((flop_text(3.1e17), flop_text(1.234e18)), ("310.0 PFLOP".into(), "1.23 EFLOP".into()));
        // The paper's Table 14: 156.12 s an epoch of ARD at 27 passes of 555 million multiply-adds.
        assert!((hours(27.0 * 2.0 * 555.4e6 * 50_000.0, 9.4) * 3600.0 - 156.12).abs() < 5.0);
    }
}
