//! The charts of one or several runs; must not know how a chart is drawn.

use super::{
    chart::{Chart, Key, Line, Point},
    data::{Epoch, Run},
    named::collect,
    summary::percentage,
    teaching,
};

pub const EPOCHS: &str = "epochs finished";
const STEPS: &str = "steps finished";

/// A quantity with its points for each run, in the order of the runs.
pub struct Curve {
    label: String,
    runs: Vec<Vec<Point>>,
}

/// Everything there are numbers for, in reading order.
pub fn all(runs: &[Run]) -> Vec<Chart> {
    let mut charts = losses(runs);
    charts.extend(accuracies(runs));
    charts.extend(evaluations(runs));
    charts.extend(teaching::all(runs));
    let rate = per_step(runs, "learning rate", |step| step.learning_rate);
    charts.push(Chart { from_zero: true, ..chart(runs, "Learning rate", STEPS, "learning rate", &[rate]) });
    let speed = per_epoch(runs, "images/s", |epoch| Some((epoch.timing.images_per_second?, 0.0)));
    charts.push(Chart { from_zero: true, ..chart(runs, "Training speed", EPOCHS, "images per second", &[speed]) });
    charts.retain(Chart::has_data);
    charts
}

/// The curves that matter most.
pub fn main(runs: &[Run]) -> Vec<Chart> {
    // Losses of different methods are different quantities, so they are shown only for a run on its own.
    let mut charts = if runs.len() == 1 { losses(runs) } else { Vec::new() };
    charts.extend(accuracies(runs));
    charts.extend(evaluations(runs));
    charts.push(teaching::trust(runs));
    charts.retain(Chart::has_data);
    charts
}

fn losses(runs: &[Run]) -> Vec<Chart> {
    let mut terms = Vec::new();
    for step in runs.iter().flat_map(|run| &run.steps) {
        collect(&mut terms, step.terms.names());
    }
    let mut curves = vec![per_step(runs, "loss", |step| step.loss)];
    curves.extend(terms.iter().map(|term| per_step(runs, term, |step| step.terms.get(term).copied().flatten())));
    let up = "value at the step";
    if runs.len() == 1 {
        let mut chart = Chart { from_zero: true, ..chart(runs, "Loss and its terms", STEPS, up, &curves) };
        // A loss with one term at work runs exactly under that term.
        if let [loss, _, ..] = &mut chart.lines[..] {
            loss.broad = true;
        }
        return vec![chart];
    }
    // Noisy lines of several runs and terms in one plot would hide each other.
    let title = |label: &str| if label == "loss" { "Loss".to_owned() } else { format!("Loss term “{label}”") };
    let charts = curves.iter().map(|curve| chart(runs, &title(&curve.label), STEPS, up, std::slice::from_ref(curve)));
    charts.map(|chart| Chart { from_zero: true, ..chart }).collect()
}

fn accuracies(runs: &[Run]) -> Vec<Chart> {
    let curves = |names: &[(&str, &str)]| teaching::counted(runs, names);
    let chart = |title, curves: &[Curve]| Chart {
        bounds: Some((0.0, 100.0)),
        ..chart(runs, title, EPOCHS, "correct in %", curves)
    };
    let student = [("student_natural", "student, natural"), ("student_adversarial", "student, adversarial")];
    let teacher = [("teacher_natural", "teacher, natural"), ("teacher_adversarial", "teacher, adversarial")];
    if runs.len() == 1 {
        return vec![chart("Accuracy on training images", &curves(&[student, teacher].concat()))];
    }
    vec![chart("Student on training images", &curves(&student)), chart("Teacher on training images", &curves(&teacher))]
}

fn evaluations(runs: &[Run]) -> Vec<Chart> {
    let all = || runs.iter().flat_map(|run| &run.evaluated);
    let mut splits = Vec::new();
    collect(&mut splits, all().map(|evaluated| evaluated.split.as_str()));
    let of_split = |split: &String| {
        let here = || all().filter(|evaluated| evaluated.split == *split);
        let mut attacks = Vec::new();
        collect(&mut attacks, here().flat_map(|evaluated| &evaluated.attacks).map(|attack| attack.name.as_str()));
        let curve = |name: &String| Curve {
            label: name.clone(),
            runs: runs
                .iter()
                .map(|run| {
                    let of_run = run.evaluated.iter().filter(|evaluated| evaluated.split == *split);
                    let point = of_run.map(|evaluated| {
                        let attack = evaluated.attacks.iter().find(|attack| attack.name == *name);
                        let value = attack.and_then(|attack| percentage(attack.correct, attack.of));
                        point(evaluated.epoch + 1, value)
                    });
                    point.collect()
                })
                .collect(),
        };
        let curves: Vec<_> = attacks.iter().map(curve).collect();
        let title = format!("Accuracy on {} images, ± standard error", split.replace("held_out", "held-out"));
        Chart { bounds: Some((0.0, 100.0)), ..chart(runs, &title, EPOCHS, "correct in %", &curves) }
    };
    splits.iter().map(of_split).collect()
}

fn per_step(runs: &[Run], label: &str, value: impl Fn(&super::data::Step) -> Option<f64>) -> Curve {
    let points = |run: &Run| run.steps.iter().map(|step| point(step.step, value(step).map(|y| (y, 0.0)))).collect();
    Curve { label: label.to_owned(), runs: runs.iter().map(points).collect() }
}

/// A quantity of each epoch, with its error.
pub fn per_epoch(runs: &[Run], label: &str, value: impl Fn(&Epoch) -> Option<(f64, f64)>) -> Curve {
    let points = |run: &Run| run.epochs.iter().map(|epoch| point(epoch.epoch + 1, value(epoch))).collect();
    Curve { label: label.to_owned(), runs: runs.iter().map(points).collect() }
}

fn point(x: u64, value: Option<(f64, f64)>) -> Point {
    Point { x: x as f64, y: value.map(|(y, _)| y), error: value.map_or(0.0, |(_, error)| error) }
}

/// One run: a colour per curve. Several: a colour per run, the same in all charts, and a dash pattern per curve.
pub fn chart(runs: &[Run], title: &str, across: &str, up: &str, curves: &[Curve]) -> Chart {
    let mut made = Chart { title: title.into(), across: across.into(), up: up.into(), ..Chart::default() };
    let drawn = |points: &[Point]| points.iter().any(|point| point.y.is_some());
    let curves: Vec<_> = curves.iter().filter(|curve| curve.runs.iter().any(|points| drawn(points))).collect();
    let single = runs.len() == 1;
    for (index, run) in runs.iter().enumerate() {
        if !single && curves.iter().any(|curve| drawn(&curve.runs[index])) {
            made.legend.push(Key { label: run.name.clone(), colour: Some(index), dash: 0 });
        }
    }
    for (index, curve) in curves.iter().enumerate() {
        if single && curves.len() > 1 {
            made.legend.push(Key { label: curve.label.clone(), colour: Some(index), dash: 0 });
        } else if !single && curves.len() > 1 {
            made.legend.push(Key { label: curve.label.clone(), colour: None, dash: index });
        }
        for (run, points) in curve.runs.iter().enumerate().filter(|(_, points)| drawn(points)) {
            let (colour, dash) = if single { (index, 0) } else { (run, index) };
            made.lines.push(Line { colour, dash, broad: false, points: points.clone() });
        }
    }
    made
}
