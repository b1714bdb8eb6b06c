//! The accuracy of the runs against the radius of the attacks, where several radii were evaluated.

use super::curve::{Curve, chart as drawn};
use super::data::{Evaluation, RecordedRun};
use super::names::collect;
use super::percentage::percentage;
use crate::draw::{Chart, Point};

/// The name of the suite's member that attacks nothing.
const NATURAL: &str = "natural";

/// The chart; without data if no run was evaluated with two radii.
pub fn chart(runs: &[RecordedRun]) -> Chart {
    let mut attacks = vec![];
    for evaluation in runs.iter().flat_map(comparable) {
        collect(
            &mut attacks,
            evaluation.attacks.iter().map(|attack| attack.name.as_str()).filter(|name| *name != NATURAL),
        );
    }
    let curve = |name: &String| Curve { label: name.clone(), runs: runs.iter().map(|run| points(run, name)).collect() };
    let curves: Vec<Curve> = attacks.iter().map(curve).collect();
    let up = "correct in %";
    Chart {
        bounds: Some((0.0, 100.0)),
        fractions: true,
        ..drawn(runs, "Accuracy against the radius of the attack", "eps x 255", up, &curves)
    }
}

/// The evaluations of the same weights on the same images with the same norm and precision as the final one, or else as the first
/// of the other radii.
fn comparable(run: &RecordedRun) -> Vec<&Evaluation> {
    let Some(first) = run.evaluation.as_ref().or(run.radii.first()) else { return vec![] };
    let same = |other: &&Evaluation| {
        (other.norm, other.precision, &other.weights_sha256, &other.data_sha256)
            == (first.norm, first.precision, &first.weights_sha256, &first.data_sha256)
    };
    run.radii.iter().chain(&run.evaluation).filter(same).collect()
}

/// The accuracies under `attack` by radius, and without an attack at 0.
fn points(run: &RecordedRun, attack: &str) -> Vec<Point> {
    let evaluations = comparable(run);
    let accuracy = |evaluation: &Evaluation, name: &str| {
        let found = evaluation.attacks.iter().find(|attack| attack.name == name)?;
        percentage(found.correct, found.of)
    };
    let point = |x: f64, (y, error): (f64, f64)| Point { x, y: Some(y), error };
    let under = |evaluation: &&Evaluation| Some(point(evaluation.eps? * 255.0, accuracy(evaluation, attack)?));
    let mut points: Vec<Point> = evaluations.iter().filter_map(under).collect();
    points.sort_by(|one, other| one.x.total_cmp(&other.x));
    points.dedup_by(|one, other| (one.x - other.x).abs() < 1e-6);
    if points.len() < 2 {
        return vec![];
    }
    let natural = evaluations.iter().find_map(|evaluation| accuracy(evaluation, NATURAL));
    natural.map(|natural| point(0.0, natural)).into_iter().chain(points).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(eps: f64, weights: &str, correct: u64) -> Evaluation {
        let text = format!(
            r#"{{"eps":{eps},"weights_sha256":"{weights}","data_sha256":"d","attacks":[
            {{"name":"natural","correct":90,"of":100}},{{"name":"pgd20","correct":{correct},"of":100}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn radii_of_the_same_weights_are_one_curve_from_natural_on() {
        let radii = vec![evaluation(4.0 / 255.0, "a", 70), evaluation(2.0 / 255.0, "a", 80), evaluation(0.1, "b", 1)];
        let evaluation = Some(evaluation(8.0 / 255.0, "a", 50));
        let run = RecordedRun { radii, evaluation, ..RecordedRun::default() };
        let found: Vec<(f64, f64)> =
            points(&run, "pgd20").iter().map(|point| (point.x.round(), point.y.unwrap())).collect();
        assert_eq!(found, [(0.0, 90.0), (2.0, 80.0), (4.0, 70.0), (8.0, 50.0)]);
    }

    #[test]
    fn one_radius_is_no_curve() {
        let run = RecordedRun { evaluation: Some(evaluation(8.0 / 255.0, "a", 50)), ..RecordedRun::default() };
        assert!(!chart(&[run]).has_data());
    }
}
