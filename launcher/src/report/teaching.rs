//! The charts of distillation: cases, guidance and trust, epoch by epoch; must not know how a chart is drawn.

use trainer::run::events::EpochDone;

use super::curve::{Curve, EPOCHS, chart, counted, per_epoch};
use super::data::{RecordedRun, finite};
use crate::draw::{Chart, LegendEntry, Line, Point};

/// The paper's Figure 1(a), read off the picture in the authors' repository, with an error of about 0.1 points.
const FIGURE_1A: &str = include_str!("figure_1a.csv");

/// The exponents of the paper's Table 5.
const EXPONENTS: [f64; 5] = [0.01, 0.05, 0.1, 0.5, 1.0];

/// The paper's Figures 1(a) and 2(b), with their captions.
pub fn of_paper(runs: &[RecordedRun]) -> Vec<(Chart, String)> {
    let (reliability, reference) = reliability(runs);
    let mut caption = "The reliability of the teacher (the paper's Fig. 1(a)): how often it is right on the training images and on the student's adversarial images.".to_owned();
    if reference {
        caption +=
            " The paper's curves, read off its figure, are drawn beside the run's: it has the same data and network.";
    }
    vec![
        (reliability, caption),
        (cases(runs), "The cases of the teacher (the paper's Fig. 2(b)): A right on natural and adversarial images, B on natural images only, C wrong on natural images.".into()),
    ]
}

/// The paper's Figure 3, middle, with its caption.
pub fn guidance_of_paper(runs: &[RecordedRun]) -> Vec<(Chart, String)> {
    let caption = "The guidance of the student (the paper's Fig. 3, middle): how often the teacher alone, the mixture of teacher and student, and the student on natural images are right.";
    vec![(guidance(runs), caption.into())]
}

/// The trust in the teacher, the paper's Figure 4, left, with captions.
pub fn trust_of_paper(runs: &[RecordedRun]) -> Vec<(Chart, String)> {
    let mut found = vec![(trust(runs), "Alpha is the teacher's probability of the true class on the adversarial image, to the power beta; its mean over the training images.".to_owned())];
    if runs.len() == 1 {
        found.push((
            quantiles(runs),
            "How alpha is spread over the training images, and its medians in the cases A, B and C.".into(),
        ));
        found.push((exponents(runs), "The mean of alpha for other exponents beta (the paper's Fig. 4, left), computed from the histogram of the teacher's probabilities.".into()));
    }
    found
}

/// The teacher on training images, and whether the paper's own curves are among the lines.
fn reliability(runs: &[RecordedRun]) -> (Chart, bool) {
    let names = [("teacher_natural", "teacher, natural"), ("teacher_adversarial", "teacher, adversarial")];
    let title = "Reliability of the teacher on training images";
    let mut made = chart(runs, title, EPOCHS, "correct in %", &counted(runs, &names));
    made.bounds = Some((0.0, 100.0));
    let reference = made.has_data() && runs.len() == 1 && is_of_the_paper(&runs[0]);
    if reference {
        for (column, label) in [(1, "paper, natural"), (2, "paper, adversarial")] {
            let point = |line: &str| {
                let numbers: Vec<f64> = line.split(',').filter_map(|cell| cell.parse().ok()).collect();
                Some(Point { x: *numbers.first()?, y: Some(*numbers.get(column)?), error: 0.0 })
            };
            let points = FIGURE_1A.lines().filter_map(point).collect();
            let colour = column + 1;
            made.lines.push(Line { label: label.into(), colour, dash: 2, points });
            made.legend.push(LegendEntry { label: label.into(), colour: Some(colour), dash: 2 });
        }
    }
    (made, reference)
}

/// Whether the run has the data and the network of the paper's Figure 1(a): CIFAR-10 alone and a ResNet-18.
fn is_of_the_paper(run: &RecordedRun) -> bool {
    let Some(config) = run.config.as_ref().and_then(|text| text.parse::<toml::Table>().ok()) else { return false };
    let architecture = config.get("student").and_then(|student| student.get("architecture")?.as_str());
    let data = config.get("data").and_then(|data| data.get("train")?.as_str()).map(std::path::Path::new);
    let images = run.started.as_ref().map_or(0, |started| started.train_images + started.held_out_images);
    architecture == Some("resnet18")
        && data.and_then(|data| data.file_stem()).is_some_and(|stem| stem.to_string_lossy().contains("cifar10"))
        && run.started.as_ref().is_some_and(|started| started.classes == 10 && started.extra.is_none())
        && images == 50_000
}

/// The mean trust in the teacher.
pub fn trust(runs: &[RecordedRun]) -> Chart {
    let curve = per_epoch(runs, "mean alpha", |epoch| Some((finite(epoch.trust.as_ref()?.mean)?, 0.0)));
    unit(runs, "Mean trust in the teacher", "mean alpha", &[curve])
}

fn cases(runs: &[RecordedRun]) -> Chart {
    let names =
        [("case_a", "A: right on both"), ("case_b", "B: right on natural only"), ("case_c", "C: wrong on natural")];
    let curves = counted(runs, &names);
    let title = "Cases of the teacher on training images";
    Chart { bounds: Some((0.0, 100.0)), ..chart(runs, title, EPOCHS, "training images in %", &curves) }
}

fn guidance(runs: &[RecordedRun]) -> Chart {
    let names = [
        ("teacher_adversarial", "teacher, adversarial"),
        ("guidance", "alpha teacher + (1 - alpha) student"),
        ("student_natural", "student, natural"),
    ];
    // Without the mixture there is nothing to compare; the other two have their own chart.
    let known = runs.iter().flat_map(|run| &run.epochs).any(|epoch| epoch.counts.contains_key("guidance"));
    let curves = if known { counted(runs, &names) } else { vec![] };
    let title = "Accuracy of the guidance on training images";
    Chart { bounds: Some((0.0, 100.0)), ..chart(runs, title, EPOCHS, "correct in %", &curves) }
}

/// The trust of one run, over all samples and for each case.
fn quantiles(runs: &[RecordedRun]) -> Chart {
    // Indices into the percentages 1, 5, 25, 50, 75, 95, 99.
    let lines = [("all", 0, "1 %"), ("all", 1, "5 %"), ("all", 2, "25 %"), ("all", 3, "median")];
    let lines = lines.into_iter().chain([
        ("case_a", 3, "median of A"),
        ("case_b", 3, "median of B"),
        ("case_c", 3, "median of C"),
    ]);
    let value = |epoch: &EpochDone, case: &str, place: usize| {
        Some((*epoch.trust.as_ref()?.quantiles.get(case)?.get(place)?, 0.0))
    };
    let curves: Vec<Curve> =
        lines.map(|(case, place, label)| per_epoch(runs, label, |epoch| value(epoch, case, place))).collect();
    Chart { ordered: true, ..unit(runs, "Quantiles of the trust", "alpha", &curves) }
}

/// The mean trust of one run for other exponents, computed from the teacher's probabilities.
fn exponents(runs: &[RecordedRun]) -> Chart {
    let mean = |epoch: &EpochDone, exponent: f64| {
        let bins = || epoch.probability.values().flat_map(|counts| counts.iter().enumerate());
        let width = epoch.probability.values().next().map(|counts| 1.0 / counts.len() as f64)?;
        let power = |bin: usize| ((bin as f64 + 0.5) * width).powf(exponent);
        let (sum, of) =
            bins().fold((0.0, 0.0), |(sum, of), (bin, count)| (sum + *count as f64 * power(bin), of + *count as f64));
        (of > 0.0).then(|| (sum / of, 0.0))
    };
    let curve = |exponent: &f64| per_epoch(runs, &format!("beta {exponent}"), |epoch| mean(epoch, *exponent));
    let curves: Vec<Curve> = EXPONENTS.iter().map(curve).collect();
    let title = "Mean trust by exponent, from the teacher's probabilities";
    Chart { ordered: true, ..unit(runs, title, "mean alpha", &curves) }
}

fn unit(runs: &[RecordedRun], title: &str, up: &str, curves: &[Curve]) -> Chart {
    Chart { bounds: Some((0.0, 1.0)), ..chart(runs, title, EPOCHS, up, curves) }
}
