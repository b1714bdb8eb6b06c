//! A table's numbers beside the paper's: one grid per metric, and all of them as comma-separated values.

use std::collections::BTreeSet;

use anyhow::Result;

use super::file::CostMetric;
use super::plan::Chosen;
use super::results::{MeasuredWeights, Results, RunState};
use super::table::{PaperTable, Row};
use crate::draw::{Grid, NOTHING, text};
use crate::report::{Figure, Measurement};

const WIDTH: usize = 120;

/// One metric of one row.
#[derive(Debug)]
struct ComparisonLine<'a> {
    row: &'a Row,
    metric: String,
    best: Option<Figure>,
    last: Option<Figure>,
    /// The paper's number as printed and as a value.
    paper: Option<(String, f64)>,
    /// The number of finished runs of the row.
    finished: usize,
}

impl ComparisonLine<'_> {
    /// Ours minus the paper's, if both measure the same thing.
    fn difference(&self) -> Option<f64> {
        let (_, paper) = self.paper.as_ref().filter(|_| self.row.elsewhere.is_none())?;
        self.best.map(|best| best.value - paper)
    }
}

/// A table with its numbers beside the paper's.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    table: &'a PaperTable,
    lines: Vec<ComparisonLine<'a>>,
    remarks: Vec<String>,
}

impl<'a> Comparison<'a> {
    /// Collects the numbers of all finished runs of the chosen rows that the paper shows. `changed` describes how the
    /// command changes the table.
    ///
    /// # Errors
    /// A run folder is damaged.
    pub(super) fn read(table: &'a PaperTable, chosen: &Chosen, changed: Option<String>) -> Result<Self> {
        let mut lines = vec![];
        let mut remarks: Vec<String> = changed.into_iter().collect();
        let (mut missing, mut other) = (vec![], vec![]);
        for row in chosen.rows.iter().map(|&row| &table.rows[row]).filter(|row| row.shown) {
            let mut results = vec![];
            for run in &row.runs {
                match RunState::of(&run.job)? {
                    RunState::Finished => results.push(Results::read(&run.job)?),
                    RunState::Other => other.push(run.name.as_str()),
                    state => missing.push(format!("{} ({})", run.name, state.text(run.job.config.epochs))),
                }
            }
            lines.extend(metrics(row).into_iter().map(|metric| line(row, metric, &results)));
        }
        if !missing.is_empty() {
            remarks.push(format!("Not finished: {}.", missing.join(", ")));
        }
        if !other.is_empty() {
            let names = other.join(", ");
            remarks.push(format!("Another configuration stands in the folder, its numbers are not used: {names}."));
        }
        remarks.extend(unmeasured(&lines));
        remarks.extend(selections(&lines));
        remarks.extend(table.notes.iter().cloned());
        Ok(Self { table, lines, remarks })
    }

    /// As plain text.
    pub(super) fn text(&self) -> String {
        let mut shown = format!("{}\n", self.table.title);
        let elsewhere: BTreeSet<String> = self.lines.iter().filter_map(|line| elsewhere(line.row)).collect();
        for sentence in elsewhere {
            shown += &format!("\n{sentence}\n");
        }
        let metrics = in_order(self.lines.iter().map(|line| line.metric.as_str()));
        for metric in &metrics {
            let grid = grid(metric, self.lines.iter().filter(|line| line.metric == *metric));
            shown += &format!("\n{}", text(&grid, WIDTH));
        }
        if self.lines.iter().any(|line| line.paper.is_some()) {
            shown += "\npaper: one run without a seed. ";
        } else {
            shown.push('\n');
        }
        shown += "±: the binomial standard error over the test images of one run, or the standard deviation\nof several \
                  runs with different seeds. best: the weights chosen in training; final: those of the last epoch.\n";
        if self.lines.iter().any(|line| line.difference().is_some()) {
            shown += "difference: best minus paper. Differences within about one ± are no evidence.\n";
        }
        for remark in &self.remarks {
            shown += &format!("{remark}\n");
        }
        shown
    }

    /// As comma-separated values, a line for each row and metric.
    pub(super) fn csv(&self) -> String {
        let mut text =
            "run,dataset,model,teacher,method,variant,metric,finished_runs,best,best_spread,final,final_spread,\
                        paper,difference\n"
                .to_string();
        for line in &self.lines {
            let Row { name, dataset, model, teacher, method, variant, .. } = line.row;
            let value = |number: Option<f64>| number.map_or(String::new(), |number| format!("{number:.4}"));
            let [best, last] = [line.best, line.last];
            let numbers = [
                value(best.map(|figure| figure.value)),
                value(best.and_then(|figure| figure.spread)),
                value(last.map(|figure| figure.value)),
                value(last.and_then(|figure| figure.spread)),
                line.paper.as_ref().map_or(String::new(), |(printed, _)| printed.clone()),
                value(line.difference()),
            ];
            let (metric, finished) = (&line.metric, line.finished);
            text += &format!("{name},{dataset},{model},{teacher},{method},{variant},{metric},{finished},");
            text += &(numbers.join(",") + "\n");
        }
        text
    }
}

/// The metrics of a row: the paper's, or the run's own attacks if the paper has none.
fn metrics(row: &Row) -> Vec<String> {
    let shown = |cost: &&CostMetric| !row.numbers.iter().any(|number| number.metric == cost.name());
    let costs = row.costs.iter().filter(shown).map(|cost| cost.name().to_string());
    if row.numbers.is_empty() {
        let suite = row.runs.first().map(|run| run.job.config.evaluation.suite.clone()).unwrap_or_default();
        return suite.into_iter().chain(costs).collect();
    }
    row.numbers.iter().map(|number| number.metric.clone()).chain(costs).collect()
}

fn line<'a>(row: &'a Row, metric: String, results: &[Results]) -> ComparisonLine<'a> {
    let figure = |weights| {
        let measured: Vec<Measurement> = results.iter().filter_map(|one| one.metric(&metric, weights)).collect();
        Figure::of(&measured)
    };
    let number = row.numbers.iter().find(|number| number.metric == metric);
    ComparisonLine {
        row,
        best: figure(MeasuredWeights::Best),
        last: figure(MeasuredWeights::Final),
        paper: number.map(|number| (number.text.clone(), number.value)),
        finished: results.len(),
        metric,
    }
}

fn grid<'a>(metric: &str, lines: impl Iterator<Item = &'a ComparisonLine<'a>>) -> Grid {
    let columns = [metric, "best", "final", "paper", "difference"].map(str::to_owned).into();
    let cell = |text: Option<String>| text.unwrap_or_else(|| NOTHING.to_owned());
    // Costs belong to the run, not to one of its weights.
    let both = CostMetric::named(metric).is_none();
    let row = |line: &ComparisonLine| {
        let several = line.row.runs.len() > 1;
        let name = if several {
            format!("{} ({} of {} seeds)", line.row.name, line.finished, line.row.runs.len())
        } else {
            line.row.name.clone()
        };
        vec![
            name,
            cell(line.best.map(|figure| figure.text())),
            cell(line.last.filter(|_| both).map(|figure| figure.text())),
            cell(line.paper.as_ref().map(|(printed, _)| printed.clone())),
            cell(line.difference().map(|difference| format!("{difference:+.2}"))),
        ]
    };
    Grid { columns, rows: lines.map(row).collect() }
}

/// The names without repetitions, in their order.
fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = vec![];
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

/// A warning if the paper's numbers are of another data set or network.
fn elsewhere(row: &Row) -> Option<String> {
    let Row { dataset, model, elsewhere, .. } = row;
    let elsewhere = elsewhere.as_ref()?;
    Some(format!(
        "ANOTHER DATA SET AND SCALE: ours is {dataset} with {model}, the paper's {elsewhere}. Only the order of the \
         methods can be\ncompared, not the numbers."
    ))
}

/// The metrics of the paper that finished runs did not measure.
fn unmeasured(lines: &[ComparisonLine]) -> Option<String> {
    let lacking = lines.iter().filter(|line| line.finished > 0 && line.best.is_none());
    let names = in_order(lacking.map(|line| line.metric.as_str()));
    (!names.is_empty()).then(|| format!("{NOTHING}: not measured by these runs: {}.", names.join(", ")))
}

/// The images that chose the best weights.
fn selections(lines: &[ComparisonLine]) -> Vec<String> {
    let of_runs = lines.iter().flat_map(|line| &line.row.runs).map(|run| run.job.config.evaluation.selection.name());
    let sentence = |name: &str| match name {
        "test" => "The best weights are chosen on the test set, as in the paper: an optimistic estimate.".to_string(),
        "held_out" => "The best weights are chosen on training images held out, not on the test set.".to_string(),
        _ => "No weights are chosen: \"best\" are the final ones.".to_string(),
    };
    in_order(of_runs).into_iter().map(sentence).collect()
}
