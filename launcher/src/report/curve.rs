//! One quantity of one or several runs, and a chart of several such curves.

use trainer::run::events::{EpochDone, StepDone};

use super::data::RecordedRun;
use super::percentage::percentage;
use crate::draw::{Chart, LegendEntry, Line, Point};

/// The horizontal axis of quantities per epoch.
pub const EPOCHS: &str = "epochs finished";
/// The horizontal axis of quantities per step.
pub const STEPS: &str = "steps finished";

/// A quantity with its points for each run, in the order of the runs.
pub struct Curve {
    pub label: String,
    pub runs: Vec<Vec<Point>>,
}

/// A quantity of each logged step.
pub fn per_step(runs: &[RecordedRun], label: &str, value: impl Fn(&StepDone) -> Option<f64>) -> Curve {
    let points =
        |run: &RecordedRun| run.steps.iter().map(|step| point(step.step, value(step).map(|y| (y, 0.0)))).collect();
    Curve { label: label.to_owned(), runs: runs.iter().map(points).collect() }
}

/// A quantity of each epoch, with its error.
pub fn per_epoch(runs: &[RecordedRun], label: &str, value: impl Fn(&EpochDone) -> Option<(f64, f64)>) -> Curve {
    let points = |run: &RecordedRun| run.epochs.iter().map(|epoch| point(epoch.epoch + 1, value(epoch))).collect();
    Curve { label: label.to_owned(), runs: runs.iter().map(points).collect() }
}

/// A point of a curve, with its error; a gap without a value.
pub fn point(x: u64, value: Option<(f64, f64)>) -> Point {
    Point { x: x as f64, y: value.map(|(y, _)| y), error: value.map_or(0.0, |(_, error)| error) }
}

/// One run: a colour per curve. Several: a colour per run, the same in all charts, and a dash pattern per curve.
pub fn chart(runs: &[RecordedRun], title: &str, across: &str, up: &str, curves: &[Curve]) -> Chart {
    let mut made = Chart { title: title.into(), across: across.into(), up: up.into(), ..Chart::default() };
    let drawn = |points: &[Point]| points.iter().any(|point| point.y.is_some());
    let curves: Vec<_> = curves.iter().filter(|curve| curve.runs.iter().any(|points| drawn(points))).collect();
    let single = runs.len() == 1;
    for (index, run) in runs.iter().enumerate() {
        if !single && curves.iter().any(|curve| drawn(&curve.runs[index])) {
            made.legend.push(LegendEntry { label: run.name.clone(), colour: Some(index), dash: 0 });
        }
    }
    for (index, curve) in curves.iter().enumerate() {
        if single && curves.len() > 1 {
            made.legend.push(LegendEntry { label: curve.label.clone(), colour: Some(index), dash: 0 });
        } else if !single && curves.len() > 1 {
            made.legend.push(LegendEntry { label: curve.label.clone(), colour: None, dash: index });
        }
        for (run, points) in curve.runs.iter().enumerate().filter(|(_, points)| drawn(points)) {
            let (colour, dash) = if single { (index, 0) } else { (run, index) };
            let label = match (single, curves.len()) {
                (true, _) => curve.label.clone(),
                (false, 1) => runs[run].name.clone(),
                (false, _) => format!("{}, {}", runs[run].name, curve.label),
            };
            made.lines.push(Line { label, colour, dash, points: points.clone() });
        }
    }
    made
}

/// The correct predictions or cases in the counts `names`, in % and under these labels.
pub fn counted(runs: &[RecordedRun], names: &[(&str, &str)]) -> Vec<Curve> {
    let percent = |epoch: &EpochDone, name: &str| {
        let count = epoch.counts.get(name)?;
        Some((percentage(count.count, count.of)?.0, 0.0))
    };
    names.iter().map(|(name, label)| per_epoch(runs, label, |epoch| percent(epoch, name))).collect()
}
