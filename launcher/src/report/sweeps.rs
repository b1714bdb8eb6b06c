//! The accuracies of runs that differ in one number of the trust alone, against that number: its exponent beta, or the epochs
//! before it counts.

use trainer::config::RunConfig;
use trainer::evaluate::Accuracy;

use super::data::RecordedRun;
use super::seeds::configuration;
use super::spread::{Figure, Measurement};
use crate::draw::{Chart, LegendEntry, Line, Point};

/// The attack of the paper's figure.
const ATTACK: &str = "pgd20";

/// A number of the trust.
#[derive(Clone, Copy)]
enum Varied {
    Exponent,
    WarmUp,
}

/// The paper's Figure 4, middle and right, with captions. They have data where at least two values were trained and evaluated.
pub fn of_paper(runs: &[RecordedRun]) -> Vec<(Chart, String)> {
    let caption = |what: &str, place: &str| {
        format!(
            "The accuracy on the test images against {what} (the paper's Fig. 4, {place}). Each point is the final evaluation of a \
             run, ± binomial standard error, or the mean over its seeds, ± sample standard deviation; the runs differ in \
             nothing else."
        )
    };
    vec![
        (chart(runs, Varied::Exponent), caption("beta, the exponent of the trust", "middle")),
        (chart(runs, Varied::WarmUp), caption("the epochs before the trust counts", "right")),
    ]
}

impl Varied {
    /// The number in a configuration, and the rest of it; `None` without a trust, or with terms that differ in the number.
    fn of(self, config: &RunConfig) -> Option<(f64, String)> {
        let mut rest = config.of_seed(0);
        let mut values = vec![];
        for term in &mut rest.loss.terms {
            let Some(trust) = &mut term.trust else { continue };
            match self {
                Self::Exponent => values.push(std::mem::replace(&mut trust.exponent, 1.0)),
                Self::WarmUp => {
                    values.push(term.from_epoch.max(trust.from_epoch) as f64);
                    (term.from_epoch, trust.from_epoch) = (0, 0);
                }
            }
        }
        let first = *values.first()?;
        values.iter().all(|value| *value == first).then(|| (first, rest.hash()))
    }
}

/// Runs that differ in the number alone, with their values.
struct Sweep<'a> {
    rest: String,
    runs: Vec<Swept<'a>>,
}

struct Swept<'a> {
    value: f64,
    seed: u64,
    run: &'a RecordedRun,
}

fn sweeps(runs: &[RecordedRun], varied: Varied) -> Vec<Sweep<'_>> {
    let mut found: Vec<Sweep> = vec![];
    for run in runs.iter().filter(|run| run.evaluation.is_some()) {
        let Some(config) = configuration(run) else { continue };
        let Some((value, rest)) = varied.of(&config) else { continue };
        let one = Swept { value, seed: config.seed, run };
        match found.iter_mut().find(|sweep| sweep.rest == rest) {
            // Two copies of a run are one run.
            Some(sweep) if sweep.runs.iter().any(|known| (known.value, known.seed) == (one.value, one.seed)) => {}
            Some(sweep) => sweep.runs.push(one),
            None => found.push(Sweep { rest, runs: vec![one] }),
        }
    }
    for sweep in &mut found {
        sweep.runs.sort_by(|one, other| one.value.total_cmp(&other.value));
    }
    found.retain(|sweep| sweep.runs.first().map(|first| first.value) != sweep.runs.last().map(|last| last.value));
    found
}

fn chart(runs: &[RecordedRun], varied: Varied) -> Chart {
    let (title, across, fractions) = match varied {
        Varied::Exponent => ("Accuracy against beta", "beta", true),
        Varied::WarmUp => ("Accuracy against the warm-up", "epochs of warm-up", false),
    };
    let sweeps = sweeps(runs, varied);
    let mut lines = vec![];
    for sweep in &sweeps {
        for attack in ["natural", ATTACK] {
            let points = points(sweep, attack);
            // With several sweeps, a line says which runs it is of.
            let label = match (sweeps.len(), sweep.runs.first()) {
                (2.., Some(first)) => format!("{attack}, runs like {}", first.run.name),
                _ => attack.to_owned(),
            };
            if points.len() > 1 {
                lines.push(Line { label, colour: lines.len(), dash: 0, points });
            }
        }
    }
    let entry = |line: &Line| LegendEntry { label: line.label.clone(), colour: Some(line.colour), dash: 0 };
    Chart {
        title: title.into(),
        across: across.into(),
        up: "correct in %".into(),
        bounds: Some((0.0, 100.0)),
        legend: lines.iter().map(entry).collect(),
        lines,
        fractions,
        ..Chart::default()
    }
}

/// The accuracies under `attack` by value, each the mean over the runs that have it.
fn points(sweep: &Sweep, attack: &str) -> Vec<Point> {
    let measured = |run: &RecordedRun| {
        let attacks: &[Accuracy] = run.evaluation.as_ref().map_or(&[], |evaluation| &evaluation.attacks);
        attacks.iter().find(|found| found.name == attack).and_then(Measurement::of)
    };
    let point = |same: &[Swept]| {
        let all: Vec<Measurement> = same.iter().filter_map(|one| measured(one.run)).collect();
        let figure = Figure::of(&all)?;
        Some(Point { x: same[0].value, y: Some(figure.value), error: figure.spread.unwrap_or(0.0) })
    };
    sweep.runs.chunk_by(|one, other| one.value == other.value).filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, beta: f64, warm_up: u64, correct: u64) -> RecordedRun {
        let config = format!(
            r#"
seed = {seed}
epochs = 2
batch = {{ size = 8 }}
data = {{ train = "a.h5", test = "a.h5" }}
student = {{ architecture = "resnet8" }}
teachers = {{ robust = {{ checkpoint = "t.safetensors" }} }}
optimizer = {{ lr = 0.1, lr_policy = "constant" }}
[loss]
terms = [
  {{ name = "teach", of = "adversarial", towards = {{ network = "robust", images = "natural" }} }},
  {{ name = "introspect", of = "adversarial", towards = {{ network = "student", images = "natural" }}, trust = {{ teacher = "robust", exponent = {beta}, inverted = true }}, from_epoch = {warm_up} }},
]
"#
        );
        let evaluation = format!(
            r#"{{"attacks":[{{"name":"natural","correct":90,"of":100}},{{"name":"pgd20","correct":{correct},"of":100}}]}}"#
        );
        let evaluation = Some(serde_json::from_str(&evaluation).unwrap());
        RecordedRun { name: format!("run {seed}"), config: Some(config), evaluation, ..RecordedRun::default() }
    }

    #[test]
    fn runs_that_differ_in_one_number_are_a_line_and_seeds_are_averaged() {
        let runs = [run(1, 0.5, 0, 52), run(1, 0.1, 0, 50), run(2, 0.1, 0, 54), run(1, 0.1, 1, 40)];
        let chart = chart(&runs, Varied::Exponent);
        let labels: Vec<&str> = chart.lines.iter().map(|line| line.label.as_str()).collect();
        assert_eq!(labels, ["natural", "pgd20"]);
        let points: Vec<(f64, Option<f64>)> = chart.lines[1].points.iter().map(|point| (point.x, point.y)).collect();
        assert_eq!(points, [(0.1, Some(52.0)), (0.5, Some(52.0))]);
        assert!((chart.lines[1].points[0].error - 8f64.sqrt()).abs() < 1e-12);
        let warm_up = super::chart(&runs, Varied::WarmUp);
        let points: Vec<(f64, Option<f64>)> = warm_up.lines[1].points.iter().map(|point| (point.x, point.y)).collect();
        assert_eq!(points, [(0.0, Some(52.0)), (1.0, Some(40.0))]);
    }

    #[test]
    fn a_run_alone_or_runs_that_differ_in_more_have_no_chart() {
        let none = |runs: &[RecordedRun]| of_paper(runs).iter().all(|(chart, _)| !chart.has_data());
        assert!(none(&[run(1, 0.1, 0, 50)]) && none(&[run(1, 0.1, 0, 50), run(2, 0.1, 0, 52)]));
        assert!(none(&[run(1, 0.1, 0, 50), run(1, 0.5, 1, 52)]));
        assert!(none(&[RecordedRun { evaluation: None, ..run(1, 0.1, 0, 50) }, run(1, 0.5, 0, 52)]));
    }
}
