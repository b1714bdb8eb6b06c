//! Accuracies, shares and case percentages as grids of text; must not know how the grids are shown.

use trainer::config::Norm;
use trainer::evaluate::Accuracy;
use trainer::run::events::{Count, EpochDone, RunStarted};

use super::data::{Evaluation, RecordedRun, finite};
use super::names::collect;
use super::percentage::with_uncertainty;
use crate::console::{duration, percent};
use crate::draw::{Grid, NOTHING, grouped};

/// The epochs that a row of the distillation grid covers.
struct Window<'a> {
    label: String,
    epochs: &'a [EpochDone],
}

/// The final evaluations: one row for each weights of a run, one column for each attack of any of them.
pub fn results(runs: &[RecordedRun]) -> Grid {
    let mut attacks = Vec::new();
    for evaluation in runs.iter().flat_map(|run| run.evaluation.iter().chain(&run.others)) {
        collect(&mut attacks, evaluation.attacks.iter().map(|attack| attack.name.as_str()));
    }
    let name_splits = leaves_test_images(runs);
    let mut columns: Vec<String> = ["run", "weights", "images"].map(str::to_owned).into();
    columns.extend(attacks.iter().cloned());
    let row = |run: &RecordedRun, evaluation: &Evaluation| {
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

/// The differences that make evaluations of these runs hard to compare, one sentence each.
pub fn caveats(runs: &[RecordedRun]) -> Vec<String> {
    let evaluations = || runs.iter().filter_map(|run| run.evaluation.as_ref());
    let mut found = Vec::new();
    let mut attacked: Vec<_> = evaluations().filter_map(|found| Some((found.norm, found.eps?))).collect();
    attacked.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    attacked.dedup();
    let budgets: Vec<_> = attacked.into_iter().map(|(norm, eps)| budget(norm, eps)).collect();
    if budgets.len() > 1 {
        found.push(format!("The runs were attacked with different eps: {}.", budgets.join(", ")));
    }
    if leaves_test_images(runs) {
        found.push("Not every run was evaluated on the test images.".to_owned());
    }
    for run in runs {
        let lost = run.steps.iter().filter(|step| !step.loss.is_finite()).count();
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
pub fn extents(runs: &[RecordedRun]) -> Grid {
    let columns =
        ["run", "parameters", "training images", "held-out images", "progress", "training time", "evaluated", "eps"];
    let row = |run: &RecordedRun| {
        let started = run.started.as_ref();
        let cell = |number: Option<u64>| number.map_or(NOTHING.to_owned(), |number| grouped(number as i64));
        // None of these sizes is 0 in a run.
        let known = |field: fn(&RunStarted) -> u64| cell(started.map(field).filter(|number| *number > 0));
        vec![
            run.name.clone(),
            known(|started| started.parameters),
            known(|started| started.train_images) + &extra(started),
            cell(started.map(|started| started.held_out_images)),
            progress(run),
            training_seconds(run).map_or(NOTHING.to_owned(), duration),
            run.evaluation.as_ref().map_or(NOTHING.to_owned(), evaluated),
            attacked_within(run).unwrap_or(NOTHING.to_owned()),
        ]
    };
    Grid { columns: columns.map(str::to_owned).into(), rows: runs.iter().map(row).collect() }
}

/// The images that a run draws from beside its training images.
fn extra(started: Option<&RunStarted>) -> String {
    let extra = started.and_then(|started| started.extra.as_ref());
    extra.map_or(String::new(), |extra| format!(" + {} extra", grouped(extra.images as i64)))
}

/// How far the student could follow its teacher: mean trust, cases and each term's share of the loss. Runs without
/// teacher counts or trust have no row.
pub fn distillation(runs: &[RecordedRun]) -> Grid {
    let runs: Vec<_> = runs.iter().filter(|run| run.epochs.iter().any(is_distilled)).collect();
    let mut terms = Vec::new();
    for epoch in runs.iter().flat_map(|run| &run.epochs) {
        collect(&mut terms, epoch.terms.keys().map(String::as_str));
    }
    let mut columns: Vec<String> = ["run", "epochs", "mean alpha", "A", "B", "C", "D"].map(str::to_owned).into();
    columns.extend(terms.iter().map(|term| format!("{term} %")));
    let mut rows = Vec::new();
    for run in runs {
        for window in windows(&run.epochs) {
            let mut cells = vec![run.name.clone(), window.label.clone()];
            cells.push(mean_trust(window.epochs).map_or(NOTHING.to_owned(), |mean| format!("{mean:.4}")));
            for case in ["case_a", "case_b", "case_c", "case_d"] {
                cells.push(share_cell(counted(window.epochs, case)));
            }
            cells.extend(terms.iter().map(|term| share_cell(share(window.epochs, term))));
            rows.push(cells);
        }
    }
    Grid { columns, rows }
}

/// Training time: the sum over epochs includes resumed sessions; the last session knows only its own time.
fn training_seconds(run: &RecordedRun) -> Option<f64> {
    let of_epochs = run.epochs.iter().map(|epoch| finite(epoch.timing.seconds)).sum::<Option<f64>>();
    let of_session = || run.finished.as_ref().and_then(|finished| finite(finished.timing.seconds));
    of_epochs.filter(|_| !run.epochs.is_empty()).or_else(of_session)
}

fn is_distilled(epoch: &EpochDone) -> bool {
    epoch.trust.is_some() || epoch.counts.keys().any(|name| name.starts_with("teacher_") || name.starts_with("case_"))
}

/// The last epoch, and all epochs since the last term of the loss became active.
fn windows(epochs: &[EpochDone]) -> Vec<Window<'_>> {
    let Some(last) = epochs.last() else { return Vec::new() };
    let mut terms = Vec::new();
    for epoch in epochs {
        collect(&mut terms, epoch.terms.keys().map(String::as_str));
    }
    // An inactive term is left out or written as exactly 0; null is a term that was computed and is not finite.
    let works = |epoch: &EpochDone, term: &str| epoch.terms.get(term).is_some_and(|value| *value != 0.0);
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

fn mean_trust(epochs: &[EpochDone]) -> Option<f64> {
    let known = epochs
        .iter()
        .filter_map(|epoch| epoch.trust.as_ref())
        .filter_map(|trust| Some((finite(trust.mean)?, trust.of as f64)));
    let (sum, of) = known.fold((0.0, 0.0), |(sum, all), (mean, of)| (sum + mean * of, all + of));
    (of > 0.0).then(|| sum / of)
}

fn counted(epochs: &[EpochDone], name: &str) -> Option<f64> {
    let known = epochs.iter().filter_map(|epoch| epoch.counts.get(name));
    let (count, of) = known.fold((0, 0), |(all, of), count: &Count| (all + count.count, of + count.of));
    (of > 0).then(|| count as f64 / of as f64)
}

/// The term's sum over the loss's sum, over the epochs where both are numbers.
fn share(epochs: &[EpochDone], term: &str) -> Option<f64> {
    let known = epochs.iter().filter_map(|epoch| Some((finite(*epoch.terms.get(term)?)?, finite(epoch.loss)?)));
    let (part, whole) = known.fold((0.0, 0.0), |(part, whole), (term, loss)| (part + term, whole + loss));
    (whole != 0.0).then(|| part / whole)
}

/// Slow attacks may have seen fewer images than the others; the cell then contains the number of images.
fn accuracy(attack: &Accuracy, images: Option<u64>) -> String {
    let Some(percent) = with_uncertainty(attack.correct, attack.of) else { return NOTHING.to_owned() };
    let fewer = if images == Some(attack.of) { String::new() } else { format!(" of {}", attack.of) };
    format!("{percent}{fewer}")
}

fn share_cell(fraction: Option<f64>) -> String {
    fraction.map_or(NOTHING.to_owned(), percent)
}

fn leaves_test_images(runs: &[RecordedRun]) -> bool {
    let mut splits = runs.iter().filter_map(|run| run.evaluation.as_ref()?.split.as_deref());
    splits.any(|split| split != "test")
}

fn evaluated(evaluation: &Evaluation) -> String {
    let weights = evaluation.weights.as_deref().unwrap_or("weights");
    evaluation.step.map_or(weights.to_owned(), |step| format!("{weights}, step {}", grouped(step as i64)))
}

/// The radius of the final evaluation, with its norm.
pub fn attacked_within(run: &RecordedRun) -> Option<String> {
    let evaluation = run.evaluation.as_ref()?;
    Some(budget(evaluation.norm, evaluation.eps?))
}

/// The radius, with the norm if it is not L-infinity.
pub fn budget(norm: Norm, eps: f64) -> String {
    let levels = eps * 255.0;
    let whole = (levels - levels.round()).abs() < 1e-4;
    let length = if whole { format!("{}/255", levels.round()) } else { format!("{eps:.5}") };
    match norm {
        Norm::Linf => length,
        Norm::L2 => format!("{length} in L2"),
    }
}

fn progress(run: &RecordedRun) -> String {
    let done = run.epochs.last().map_or(0, |epoch| epoch.epoch + 1);
    match run.started.as_ref().map(|started| started.epochs).filter(|epochs| *epochs > 0) {
        Some(planned) => format!("{done} of {planned} epochs"),
        None => format!("{done} epochs"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn run(text: &str) -> RecordedRun {
        let mut run = RecordedRun { name: "r".to_owned(), ..RecordedRun::default() };
        run.replay(text.as_bytes(), Path::new("metrics.jsonl")).unwrap();
        run
    }

    #[test]
    fn a_cell_names_the_images_when_they_are_fewer() {
        let attack = Accuracy { name: "natural".to_owned(), correct: 8721, of: 10000 };
        assert_eq!(accuracy(&attack, Some(10000)), "87.21 ± 0.33");
        assert_eq!(accuracy(&attack, Some(20000)), "87.21 ± 0.33 of 10000");
    }

    #[test]
    fn radii_of_different_norms_are_told_apart() {
        let evaluated = |text: &str| {
            let evaluation = Some(serde_json::from_str(text).unwrap());
            RecordedRun { evaluation, ..RecordedRun::default() }
        };
        // Files from before the L2 norm was added name no norm.
        let old = || evaluated(r#"{"eps":0.5,"attacks":[]}"#);
        let l2 = evaluated(r#"{"eps":0.5,"norm":"l2","attacks":[]}"#);
        assert_eq!(
            [attacked_within(&old()), attacked_within(&l2)],
            [Some("0.50000".into()), Some("0.50000 in L2".into())]
        );
        let said = caveats(&[l2, old(), old()]).concat();
        assert!(said.contains("different eps: 0.50000, 0.50000 in L2."), "{said}");
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
    fn budgets_read_naturally() {
        assert_eq!([8.0 / 255.0, 0.3].map(|eps| budget(Norm::Linf, eps)), ["8/255", "0.30000"]);
    }
}
