//! Accuracies, shares and case percentages as grids of text; must not know in which form the grids are shown.

use super::{
    axis::grouped,
    data::{Attacked, Count, Epoch, Evaluation, Run, Started},
    named::collect,
};

/// What stands in a cell without a number.
pub const NOTHING: &str = "–";

/// Rows of cells under named columns.
#[derive(Debug, Default)]
pub struct Grid {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Epochs a row of the distillation grid speaks about.
struct Window<'a> {
    label: String,
    epochs: &'a [Epoch],
}

/// Percentage and binomial standard error in percentage points.
pub fn percentage(count: u64, of: u64) -> Option<(f64, f64)> {
    (of > 0 && count <= of).then(|| {
        let fraction = count as f64 / of as f64;
        (100.0 * fraction, 100.0 * (fraction * (1.0 - fraction) / of as f64).sqrt())
    })
}

/// The final evaluations: one row for each weights of a run, one column for each attack of any of them.
pub fn results(runs: &[Run]) -> Grid {
    let mut attacks = Vec::new();
    for evaluation in runs.iter().flat_map(|run| run.evaluation.iter().chain(&run.others)) {
        collect(&mut attacks, evaluation.attacks.iter().map(|attack| attack.name.as_str()));
    }
    let name_splits = leaves_test_images(runs);
    let mut columns: Vec<String> = ["run", "weights", "images"].map(str::to_owned).into();
    columns.extend(attacks.iter().cloned());
    let row = |run: &Run, evaluation: &Evaluation| {
        let mut cells = vec![run.name.clone(), evaluation.weights.clone().unwrap_or(NOTHING.to_owned())];
        let images = evaluation.images.or(evaluation.attacks.first().map(|attack| attack.of));
        let number = images.map_or(NOTHING.to_owned(), |images| images.to_string());
        match &evaluation.split {
            Some(split) if name_splits => cells.push(format!("{number} {split}")),
            _ => cells.push(number),
        }
        for name in &attacks {
            let attack = evaluation.attacks.iter().find(|attack| attack.name == *name);
            cells.push(attack.map_or(NOTHING.to_owned(), |attack| accuracy(attack, images)));
        }
        cells
    };
    let mut rows = Vec::new();
    for run in runs {
        match &run.evaluation {
            Some(evaluation) => rows.extend([evaluation].into_iter().chain(&run.others).map(|found| row(run, found))),
            None => {
                let mut cells = vec![run.name.clone(), "not evaluated".to_owned()];
                cells.resize(columns.len(), NOTHING.to_owned());
                rows.push(cells);
            }
        }
    }
    Grid { rows, columns }
}

/// What makes evaluations of these runs hard to compare, one sentence each.
pub fn caveats(runs: &[Run]) -> Vec<String> {
    let evaluations = || runs.iter().filter_map(|run| run.evaluation.as_ref());
    let mut found = Vec::new();
    let mut budgets: Vec<_> = evaluations().filter_map(|evaluation| evaluation.eps).collect();
    budgets.sort_by(f64::total_cmp);
    budgets.dedup();
    if budgets.len() > 1 {
        let list: Vec<_> = budgets.iter().map(|eps| budget(*eps)).collect();
        found.push(format!("The runs were attacked with different eps: {}.", list.join(", ")));
    }
    if leaves_test_images(runs) {
        found.push("Not every run was evaluated on the test images.".to_owned());
    }
    for run in runs {
        let lost = run.steps.iter().filter(|step| step.loss.is_none()).count();
        if lost > 0 {
            found.push(format!("{}: the loss was not a number at {lost} logged steps.", run.name));
        }
        if run.finished.is_none() {
            found.push(format!("{}: training has not finished ({}).", run.name, progress(run)));
        }
    }
    found
}

/// Size, progress and training time of each run.
pub fn extents(runs: &[Run]) -> Grid {
    let columns =
        ["run", "parameters", "training images", "held-out images", "progress", "training time", "evaluated", "eps"];
    let row = |run: &Run| {
        let size = |field: fn(&Started) -> Option<u64>| {
            let number = run.started.as_ref().and_then(field);
            number.map_or(NOTHING.to_owned(), |number| grouped(number as i64))
        };
        vec![
            run.name.clone(),
            size(|started| started.parameters),
            size(|started| started.train_images),
            size(|started| started.held_out_images),
            progress(run),
            training_seconds(run).map_or(NOTHING.to_owned(), duration),
            run.evaluation.as_ref().map_or(NOTHING.to_owned(), evaluated),
            run.evaluation.as_ref().and_then(|evaluation| evaluation.eps).map_or(NOTHING.to_owned(), budget),
        ]
    };
    Grid { columns: columns.map(str::to_owned).into(), rows: runs.iter().map(row).collect() }
}

/// How far the student could follow its teacher: mean trust, cases and each term's share of the loss.
/// Runs without teacher counts or trust have no row; no such run, no rows.
pub fn distillation(runs: &[Run]) -> Grid {
    let runs: Vec<_> = runs.iter().filter(|run| run.epochs.iter().any(is_distilled)).collect();
    let mut terms = Vec::new();
    for epoch in runs.iter().flat_map(|run| &run.epochs) {
        collect(&mut terms, epoch.terms.names());
    }
    let mut columns: Vec<String> = ["run", "epochs", "mean alpha", "A", "B", "C", "D"].map(str::to_owned).into();
    columns.extend(terms.iter().map(|term| format!("{term} %")));
    let mut rows = Vec::new();
    for run in runs {
        for window in windows(&run.epochs) {
            let mut cells = vec![run.name.clone(), window.label.clone()];
            cells.push(mean_trust(window.epochs).map_or(NOTHING.to_owned(), |mean| format!("{mean:.4}")));
            for case in ["case_a", "case_b", "case_c", "case_d"] {
                cells.push(percent(counted(window.epochs, case)));
            }
            cells.extend(terms.iter().map(|term| percent(share(window.epochs, term))));
            rows.push(cells);
        }
    }
    Grid { columns, rows }
}

/// Training time: epochs add up over resumed sessions, where the last session alone knows only its own time.
fn training_seconds(run: &Run) -> Option<f64> {
    let of_epochs = run.epochs.iter().map(|epoch| epoch.timing.seconds).sum::<Option<f64>>();
    let of_session = || run.finished.as_ref().and_then(|finished| finished.timing.seconds);
    of_epochs.filter(|_| !run.epochs.is_empty()).or_else(of_session)
}

fn is_distilled(epoch: &Epoch) -> bool {
    epoch.trust.is_some() || epoch.counts.names().any(|name| name.starts_with("teacher_") || name.starts_with("case_"))
}

/// The last epoch, and all epochs since the last term of the loss came in.
fn windows(epochs: &[Epoch]) -> Vec<Window<'_>> {
    let Some(last) = epochs.last() else { return Vec::new() };
    let mut terms = Vec::new();
    for epoch in epochs {
        collect(&mut terms, epoch.terms.names());
    }
    // A term not yet at work is left out or written as exactly 0; null is a term that was worked out and failed.
    let works = |epoch: &Epoch, term: &str| epoch.terms.get(term).is_some_and(|value| *value != Some(0.0));
    let starts = terms.iter().filter_map(|term| epochs.iter().position(|epoch| works(epoch, term)));
    let start = starts.max().unwrap_or(0);
    let mut found = Vec::new();
    if start + 1 < epochs.len() {
        let label = format!("{}–{}", epochs[start].epoch + 1, last.epoch + 1);
        found.push(Window { label, epochs: &epochs[start..] });
    }
    found.push(Window { label: (last.epoch + 1).to_string(), epochs: &epochs[epochs.len() - 1..] });
    found
}

fn mean_trust(epochs: &[Epoch]) -> Option<f64> {
    let known =
        epochs.iter().filter_map(|epoch| epoch.trust.as_ref()).filter_map(|trust| Some((trust.mean?, trust.of as f64)));
    let (sum, of) = known.fold((0.0, 0.0), |(sum, all), (mean, of)| (sum + mean * of, all + of));
    (of > 0.0).then(|| sum / of)
}

fn counted(epochs: &[Epoch], name: &str) -> Option<f64> {
    let known = epochs.iter().filter_map(|epoch| epoch.counts.get(name));
    let (count, of) = known.fold((0, 0), |(all, of), count: &Count| (all + count.count, of + count.of));
    (of > 0).then(|| count as f64 / of as f64)
}

/// The term's sum over the loss's sum, over the epochs where both are numbers.
fn share(epochs: &[Epoch], term: &str) -> Option<f64> {
    let known = epochs.iter().filter_map(|epoch| Some(((*epoch.terms.get(term)?)?, epoch.loss?)));
    let (part, whole) = known.fold((0.0, 0.0), |(part, whole), (term, loss)| (part + term, whole + loss));
    (whole != 0.0).then(|| part / whole)
}

/// Slow attacks may have seen fewer images than the others; the cell then says how many.
fn accuracy(attack: &Attacked, images: Option<u64>) -> String {
    let Some((percent, error)) = percentage(attack.correct, attack.of) else { return NOTHING.to_owned() };
    let fewer = if images == Some(attack.of) { String::new() } else { format!(" of {}", attack.of) };
    format!("{percent:.2} ± {error:.2}{fewer}")
}

fn percent(fraction: Option<f64>) -> String {
    // What is rare but not absent must not look absent.
    let text = |percent: f64| {
        if 0.0 < percent && percent < 0.1 { format!("{percent:.4} %") } else { format!("{percent:.1} %") }
    };
    fraction.map_or(NOTHING.to_owned(), |fraction| text(100.0 * fraction))
}

fn leaves_test_images(runs: &[Run]) -> bool {
    let mut splits = runs.iter().filter_map(|run| run.evaluation.as_ref()?.split.as_deref());
    splits.any(|split| split != "test")
}

fn evaluated(evaluation: &Evaluation) -> String {
    let weights = evaluation.weights.as_deref().unwrap_or("weights");
    evaluation.step.map_or(weights.to_owned(), |step| format!("{weights}, step {}", grouped(step as i64)))
}

fn budget(eps: f64) -> String {
    let levels = eps * 255.0;
    if (levels - levels.round()).abs() < 1e-4 { format!("{}/255", levels.round()) } else { format!("{eps:.5}") }
}

fn progress(run: &Run) -> String {
    let done = run.epochs.last().map_or(0, |epoch| epoch.epoch + 1);
    match run.started.as_ref().and_then(|started| started.epochs) {
        Some(planned) => format!("{done} of {planned} epochs"),
        None => format!("{done} epochs"),
    }
}

fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn run(text: &str) -> Run {
        let mut run = Run { name: "r".to_owned(), ..Run::default() };
        run.replay(text.as_bytes(), Path::new("metrics.jsonl")).unwrap();
        run
    }

    #[test]
    fn percentages_carry_the_binomial_error() {
        let (percent, error) = percentage(8721, 10000).unwrap();
        assert!((percent - 87.21).abs() < 1e-9 && (error - 0.33397).abs() < 1e-4);
        assert_eq!(percentage(0, 0), None);
        let attack = Attacked { name: "natural".to_owned(), correct: 8721, of: 10000 };
        assert_eq!(accuracy(&attack, Some(10000)), "87.21 ± 0.33");
        assert_eq!(accuracy(&attack, Some(20000)), "87.21 ± 0.33 of 10000");
    }

    #[test]
    fn shares_and_cases_are_taken_since_the_last_term_started() {
        let grid = distillation(&[run(concat!(
            r#"{"event":"epoch","epoch":0,"loss":9,"terms":{"teach":9},"counts":{"case_a":{"count":1,"of":10}}}"#,
            "\n",
            r#"{"event":"epoch","epoch":1,"loss":4,"terms":{"teach":3,"introspect":1},"#,
            r#""counts":{"case_a":{"count":7,"of":10}},"trust":{"mean":0.9,"of":10}}"#,
            "\n",
            r#"{"event":"epoch","epoch":2,"loss":2,"terms":{"teach":1,"introspect":1},"#,
            r#""counts":{"case_a":{"count":24,"of":30}},"trust":{"mean":0.5,"of":30}}"#,
        ))]);
        let columns = ["run", "epochs", "mean alpha", "A", "B", "C", "D", "teach %", "introspect %"];
        assert_eq!(grid.columns, columns);
        assert_eq!(grid.rows[0], ["r", "2–3", "0.6000", "77.5 %", "–", "–", "–", "66.7 %", "33.3 %"]);
        assert_eq!(grid.rows[1], ["r", "3", "0.5000", "80.0 %", "–", "–", "–", "50.0 %", "50.0 %"]);
    }

    #[test]
    fn runs_without_a_teacher_have_no_distillation_row() {
        let plain = r#"{"event":"epoch","epoch":0,"counts":{"student_natural":{"count":1,"of":2}}}"#;
        assert!(distillation(&[run(plain)]).rows.is_empty());
    }

    #[test]
    fn a_run_without_evaluation_says_so() {
        assert_eq!(results(&[run("")]).rows, [["r", "not evaluated", "–"]]);
        assert_eq!(caveats(&[run("")]), ["r: training has not finished (0 epochs)."]);
    }

    #[test]
    fn durations_and_budgets_read_naturally() {
        assert_eq!([41.26, 210.0, 7384.0].map(duration), ["41.3 s", "3 min 30 s", "2 h 03 min"]);
        assert_eq!([8.0 / 255.0, 0.3].map(budget), ["8/255", "0.30000"]);
    }
}
