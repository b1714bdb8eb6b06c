//! The charts of one or several runs; must not know how a chart is drawn.

use super::curve::{Curve, EPOCHS, STEPS, chart, counted, per_epoch, per_step, point};
use super::data::{RecordedRun, finite};
use super::names::collect;
use super::percentage::percentage;
use super::radius;
use super::sweeps;
use super::teaching;
use crate::draw::{Chart, Line};

/// The least factor between the medians of two lines that asks for a logarithmic axis.
const DECADES: f64 = 30.0;

/// The charts of the paper's diagnostics, each with its caption, in the order of the paper's figures.
pub fn of_paper(runs: &[RecordedRun]) -> Vec<(Chart, String)> {
    let mut found = teaching::of_paper(runs);
    // With several runs, the second chart repeats the lines of the teacher.
    found.extend(accuracies(runs).into_iter().take(1).map(|chart| {
        (chart, "The reliability of the student (the paper's Fig. 3, left): how often it is right on the training images and on its own adversarial images.".to_owned())
    }));
    found.extend(teaching::guidance_of_paper(runs));
    found.extend(evaluations(runs).into_iter().map(|chart| {
        (chart, "The accuracy after each epoch, on the images of selection. The paper's Fig. 3, right, compares it with and without the student's own term.".to_owned())
    }));
    found.extend(teaching::trust_of_paper(runs));
    found.extend(sweeps::of_paper(runs));
    let caption =
        "Each point is an evaluation of its own, made by `iad-launch eval --eps`. At 0 the images are not attacked.";
    found.push((radius::chart(runs), caption.into()));
    found.retain(|(chart, _)| chart.has_data());
    found
}

/// The other charts with data: loss, rate and speed.
pub fn of_training(runs: &[RecordedRun]) -> Vec<(Chart, String)> {
    let mut found: Vec<(Chart, String)> = losses(runs)
        .into_iter()
        .map(|chart| {
            let axis =
                if chart.logarithmic { " The vertical axis is logarithmic, so a term of 0 is not drawn." } else { "" };
            (chart, format!("Values as recorded, not smoothed.{axis}"))
        })
        .collect();
    let rate = per_step(runs, "learning rate", |step| finite(step.learning_rate));
    let rate = Chart { from_zero: true, ..chart(runs, "Learning rate", STEPS, "learning rate", &[rate]) };
    found.push((rate, "The rate of each recorded step.".into()));
    let speed = per_epoch(runs, "images/s", |epoch| Some((epoch.timing.images_per_second?, 0.0)));
    let speed = Chart { from_zero: true, ..chart(runs, "Training speed", EPOCHS, "images per second", &[speed]) };
    found.push((speed, "Training images a second over all ranks.".into()));
    found.retain(|(chart, _)| chart.has_data());
    found
}

/// The curves that matter most.
pub fn main(runs: &[RecordedRun]) -> Vec<Chart> {
    // Losses of different methods are different quantities, so only a single run shows its loss.
    let mut charts = if runs.len() == 1 { losses(runs) } else { Vec::new() };
    charts.extend(accuracies(runs));
    charts.extend(evaluations(runs));
    charts.push(teaching::trust(runs));
    charts.retain(Chart::has_data);
    charts
}

fn losses(runs: &[RecordedRun]) -> Vec<Chart> {
    let mut terms = Vec::new();
    for step in runs.iter().flat_map(|run| &run.steps) {
        collect(&mut terms, step.terms.keys().map(String::as_str));
    }
    let mut curves = vec![per_step(runs, "loss", |step| finite(step.loss))];
    curves.extend(terms.iter().map(|term| per_step(runs, term, |step| step.terms.get(term).copied().and_then(finite))));
    let up = "value at the step";
    if runs.len() == 1 {
        return vec![by_decades(chart(runs, "Loss and its terms", STEPS, up, &curves))];
    }
    // Noisy lines of several runs and terms would hide each other in one plot.
    let title = |label: &str| if label == "loss" { "Loss".to_owned() } else { format!("Loss term “{label}”") };
    let charts = curves.iter().map(|curve| chart(runs, &title(&curve.label), STEPS, up, std::slice::from_ref(curve)));
    charts.map(|chart| Chart { from_zero: true, ..chart }).collect()
}

/// The chart with a logarithmic axis, if the medians of its lines differ by decades and would lie on 0 otherwise.
fn by_decades(chart: Chart) -> Chart {
    let median = |line: &Line| {
        let mut known: Vec<f64> = line.points.iter().filter_map(|point| point.y).filter(|y| *y > 0.0).collect();
        known.sort_by(f64::total_cmp);
        known.get(known.len() / 2).copied()
    };
    let medians = || chart.lines.iter().filter_map(median);
    let logarithmic = medians().fold(0.0, f64::max) > DECADES * medians().fold(f64::INFINITY, f64::min);
    Chart { from_zero: !logarithmic, logarithmic, ..chart }
}

fn accuracies(runs: &[RecordedRun]) -> Vec<Chart> {
    let curves = |names: &[(&str, &str)]| counted(runs, names);
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

fn evaluations(runs: &[RecordedRun]) -> Vec<Chart> {
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
