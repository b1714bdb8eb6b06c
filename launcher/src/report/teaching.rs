//! The charts of distillation: cases, guidance and trust, epoch by epoch; must not know how a chart is drawn.

use super::{
    chart::Chart,
    curves::{Curve, EPOCHS, chart, per_epoch},
    data::{Epoch, Run},
    summary::percentage,
};

/// The exponents of the paper's Table 5.
const EXPONENTS: [f64; 5] = [0.01, 0.05, 0.1, 0.5, 1.0];

/// Everything there are numbers for.
pub fn all(runs: &[Run]) -> Vec<Chart> {
    let mut charts = vec![cases(runs), guidance(runs), trust(runs)];
    if runs.len() == 1 {
        charts.extend([quantiles(runs), exponents(runs)]);
    }
    charts
}

/// The mean trust in the teacher.
pub fn trust(runs: &[Run]) -> Chart {
    let curve = per_epoch(runs, "mean alpha", |epoch| Some((epoch.trust.as_ref()?.mean?, 0.0)));
    unit(runs, "Mean trust in the teacher", "mean alpha", &[curve])
}

/// The correct predictions or cases that `names` count, in % and under these labels.
pub fn counted(runs: &[Run], names: &[(&str, &str)]) -> Vec<Curve> {
    let percent = |epoch: &Epoch, name: &str| {
        let count = epoch.counts.get(name)?;
        Some((percentage(count.count, count.of)?.0, 0.0))
    };
    names.iter().map(|(name, label)| per_epoch(runs, label, |epoch| percent(epoch, name))).collect()
}

fn cases(runs: &[Run]) -> Chart {
    let names =
        [("case_a", "A: right on both"), ("case_b", "B: right on natural only"), ("case_c", "C: wrong on natural")];
    let curves = counted(runs, &names);
    let title = "Cases of the teacher on training images";
    Chart { bounds: Some((0.0, 100.0)), ..chart(runs, title, EPOCHS, "training images in %", &curves) }
}

fn guidance(runs: &[Run]) -> Chart {
    let names = [
        ("teacher_adversarial", "teacher, adversarial"),
        ("guidance", "alpha teacher + (1 - alpha) student"),
        ("student_natural", "student, natural"),
    ];
    // Without the mixture there is nothing to compare: the other two have a chart of their own.
    let known = runs.iter().flat_map(|run| &run.epochs).any(|epoch| epoch.counts.get("guidance").is_some());
    let curves = if known { counted(runs, &names) } else { vec![] };
    let title = "Accuracy of the guidance on training images";
    Chart { bounds: Some((0.0, 100.0)), ..chart(runs, title, EPOCHS, "correct in %", &curves) }
}

/// Of one run, over all samples and for each case.
fn quantiles(runs: &[Run]) -> Chart {
    // Places in the list of percentages 1, 5, 25, 50, 75, 95, 99.
    let lines = [("all", 0, "1 %"), ("all", 1, "5 %"), ("all", 2, "25 %"), ("all", 3, "median")];
    let lines = lines.into_iter().chain([
        ("case_a", 3, "median of A"),
        ("case_b", 3, "median of B"),
        ("case_c", 3, "median of C"),
    ]);
    let value =
        |epoch: &Epoch, case: &str, place: usize| Some((*epoch.trust.as_ref()?.quantiles.get(case)?.get(place)?, 0.0));
    let curves: Vec<Curve> =
        lines.map(|(case, place, label)| per_epoch(runs, label, |epoch| value(epoch, case, place))).collect();
    unit(runs, "Quantiles of the trust", "alpha", &curves)
}

/// Of one run: what the mean trust would be with other exponents, from the teacher's probabilities.
fn exponents(runs: &[Run]) -> Chart {
    let mean = |epoch: &Epoch, exponent: f64| {
        let bins = || epoch.probability.0.iter().flat_map(|(_, counts)| counts.iter().enumerate());
        let width = epoch.probability.0.first().map(|(_, counts)| 1.0 / counts.len() as f64)?;
        let power = |bin: usize| ((bin as f64 + 0.5) * width).powf(exponent);
        let (sum, of) =
            bins().fold((0.0, 0.0), |(sum, of), (bin, count)| (sum + *count as f64 * power(bin), of + *count as f64));
        (of > 0.0).then(|| (sum / of, 0.0))
    };
    let curve = |exponent: &f64| per_epoch(runs, &format!("beta {exponent}"), |epoch| mean(epoch, *exponent));
    let curves: Vec<Curve> = EXPONENTS.iter().map(curve).collect();
    unit(runs, "Mean trust by exponent, from the teacher's probabilities", "mean alpha", &curves)
}

fn unit(runs: &[Run], title: &str, up: &str, curves: &[Curve]) -> Chart {
    Chart { bounds: Some((0.0, 1.0)), ..chart(runs, title, EPOCHS, up, curves) }
}
