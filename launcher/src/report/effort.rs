//! The speed of the runs and their time by phase; must not know in which form it is shown.

use trainer::run::events::Timing;

use super::data::RecordedRun;
use super::names::collect;
use crate::console::rate_of_operations;
use crate::draw::{Grid, NOTHING};

/// One column for each run with recorded phases: rates over its epochs, and each phase's share of the time.
pub fn grid(runs: &[RecordedRun]) -> Grid {
    let runs: Vec<&RecordedRun> = runs.iter().filter(|run| timings(run).next().is_some()).collect();
    let mut phases = Vec::new();
    for timing in runs.iter().flat_map(|run| timings(run)) {
        collect(&mut phases, timing.phases.keys().map(String::as_str));
    }
    let mut columns: Vec<String> =
        ["number", "images/s", "operations", "of peak", "peak memory"].map(str::to_owned).into();
    columns.extend(phases.iter().map(|phase| format!("{phase} %")));
    let row = |run: &&RecordedRun| {
        let seconds = |timing: &Timing| timing.phases.values().sum::<f64>();
        let whole: f64 = timings(run).map(seconds).sum();
        // Each epoch is weighted by its time.
        let mean = |value: fn(&Timing) -> Option<f64>| {
            let sum = timings(run).map(|timing| Some(value(timing)? * seconds(timing))).sum::<Option<f64>>();
            sum.map(|sum| sum / whole)
        };
        let text = |value: Option<f64>, text: fn(f64) -> String| value.map_or(NOTHING.to_owned(), text);
        let mut cells = vec![
            run.name.clone(),
            text(mean(|timing| timing.images_per_second), |rate| format!("{rate:.0}")),
            text(mean(|timing| timing.flops), rate_of_operations),
            text(mean(|timing| timing.utilisation), |share| format!("{:.1} %", 100.0 * share)),
            text(timings(run).filter_map(|timing| timing.peak_memory).max().map(|bytes| bytes as f64), |bytes| {
                format!("{:.0} MiB", bytes / 1048576.0)
            }),
        ];
        cells.extend(phases.iter().map(|phase| {
            let spent: f64 = timings(run).filter_map(|timing| timing.phases.get(phase)).sum();
            format!("{:.1}", 100.0 * spent / whole)
        }));
        cells
    };
    Grid { rows: runs.iter().map(row).collect(), columns }.turned()
}

/// The timings of the epochs with phases.
fn timings(run: &RecordedRun) -> impl Iterator<Item = &Timing> {
    run.epochs.iter().map(|epoch| &epoch.timing).filter(|timing| !timing.phases.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn shares_are_those_of_all_epochs_together() {
        let lines = concat!(
            r#"{"event":"epoch","epoch":0,"timing":{"seconds":4,"images_per_second":10,"flops":2e12,"utilisation":0.5,"#,
            r#""peak_memory":1048576,"phases":{"attack":3,"other":1}}}"#,
            "\n",
            r#"{"event":"epoch","epoch":1,"timing":{"seconds":12,"images_per_second":30,"flops":4e12,"utilisation":0.9,"#,
            r#""peak_memory":3145728,"phases":{"attack":9,"other":3}}}"#,
        );
        let mut run = RecordedRun { name: "r".to_owned(), ..RecordedRun::default() };
        run.replay(lines.as_bytes(), Path::new("metrics.jsonl")).unwrap();
        let old = RecordedRun { name: "old".to_owned(), ..RecordedRun::default() };
        let grid = grid(&[run, old]);
        let names = ["images/s", "operations", "of peak", "peak memory", "attack %", "other %"];
        let values = ["25", "3.5 TFLOP/s", "80.0 %", "3 MiB", "75.0", "25.0"];
        assert_eq!(grid.columns, ["number", "r"]);
        assert_eq!(grid.rows, names.iter().zip(values).map(|(name, value)| [*name, value]).collect::<Vec<_>>());
    }
}
