//! `iad-launch compare RUN RUN ...`: the keys in which runs differ, and their numbers side by side.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use datasets::UserError;
use serde_json::{Value, json};
use toml::Table;
use trainer::evaluate::Accuracy;
use trainer::run::changes::flat;
use trainer::run::folder::RunFolder;

use crate::command::Compare;
use crate::console::{Out, duration};
use crate::draw::{Grid, NOTHING, text};
use crate::report::{
    OVER_SEEDS, OverSeeds, RecordedRun, differing, expanded, finite, grid_over_seeds, over_seeds, percentage, read,
};

const WIDTH: usize = 140;

/// A number of each run, in percent with its standard error or in seconds.
#[derive(Debug)]
struct Row {
    name: String,
    values: Vec<Option<(f64, f64)>>,
}

/// Prints how runs differ.
///
/// # Errors
/// A folder is no run or is damaged; the terminal cannot be written to.
pub(crate) fn run(command: &Compare) -> Result<()> {
    write!(Out, "{}", text_of(&command.runs, command.json)?).context("writing to the terminal")
}

/// How these runs differ, as text or as JSON.
pub(super) fn text_of(folders: &[PathBuf], json: bool) -> Result<String> {
    let folders = expanded(folders);
    if folders.len() < 2 {
        let error = UserError::expected("at least two runs, or a folder with the runs of several seeds");
        return Err(error.file(&folders[0]).hint("`iad-launch report RUN` shows one run").into());
    }
    let configs: Vec<Table> =
        folders.iter().map(|run| Ok(flat(&RunFolder::at(run).config()?))).collect::<Result<_>>()?;
    let runs = read(&folders)?;
    let (keys, rows, seeds) = (differing(&configs), accuracies(&runs), over_seeds(&runs));
    Ok(if json {
        serde_json::to_string_pretty(&data(&runs, &keys, &rows, &seeds))? + "\n"
    } else {
        shown(&runs, &keys, &rows) + &text_over_seeds(&seeds)
    })
}

/// Mean and deviation of the runs of several seeds, below a blank line; nothing without any.
pub(super) fn text_over_seeds(seeds: &[OverSeeds]) -> String {
    if seeds.is_empty() { String::new() } else { format!("\n{}{OVER_SEEDS}\n", text(&grid_over_seeds(seeds), WIDTH)) }
}

/// The accuracies of the final evaluations, by attack.
fn accuracies(runs: &[RecordedRun]) -> Vec<Row> {
    let attacks = |run: &RecordedRun| run.evaluation.as_ref().map_or(vec![], |found| found.attacks.clone());
    let mut names: Vec<String> = vec![];
    for attack in runs.iter().flat_map(attacks) {
        if !names.contains(&attack.name) {
            names.push(attack.name);
        }
    }
    let of = |run: &RecordedRun, name: &str| {
        let found: Option<Accuracy> = attacks(run).into_iter().find(|attack| attack.name == name);
        found.and_then(|attack| percentage(attack.correct, attack.of))
    };
    let row = |name: String| Row { values: runs.iter().map(|run| of(run, &name)).collect(), name };
    names.into_iter().map(row).collect()
}

/// The second less the first, with the standard error of a difference of independent counts.
fn difference(row: &Row) -> Option<(f64, f64)> {
    match row.values[..] {
        [Some((one, error)), Some((other, second))] => Some((other - one, error.hypot(second))),
        _ => None,
    }
}

fn shown(runs: &[RecordedRun], keys: &[(String, Vec<Option<String>>)], rows: &[Row]) -> String {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    let columns = |first: &str| std::iter::once(first.to_string()).chain(names.clone()).collect::<Vec<_>>();
    let nothing = || NOTHING.to_string();
    let key_row = |(key, values): &(String, Vec<Option<String>>)| {
        let values = values.iter().map(|value| value.clone().unwrap_or_else(nothing));
        std::iter::once(key.clone()).chain(values).collect()
    };
    let mut shown = if keys.is_empty() {
        "no key differs\n".to_string()
    } else {
        text(&Grid { columns: columns("key"), rows: keys.iter().map(key_row).collect() }, WIDTH)
    };
    let mut grid = Grid { columns: columns("number"), rows: vec![] };
    let two = runs.len() == 2;
    if two {
        grid.columns.push("difference".into());
    }
    let mut add = |name: &str, values: Vec<String>, difference: String| {
        let last = two.then_some(difference);
        grid.rows.push(std::iter::once(name.to_string()).chain(values).chain(last).collect());
    };
    for row in rows {
        let cell = |value: &Option<(f64, f64)>| {
            value.map_or_else(nothing, |(percent, error)| format!("{percent:.2} ± {error:.2}"))
        };
        let change = difference(row).map_or_else(nothing, |(percent, error)| format!("{percent:+.2} ± {error:.2}"));
        add(&format!("{} %", row.name), row.values.iter().map(cell).collect(), change);
    }
    let each = |value: fn(&RecordedRun) -> String| runs.iter().map(value).collect::<Vec<_>>();
    add("epochs", each(|run| run.epochs.len().to_string()), nothing());
    add("training", each(|run| duration(seconds(run))), nothing());
    shown += "\n";
    shown + &text(&grid, WIDTH)
}

/// Seconds of training so far.
fn seconds(run: &RecordedRun) -> f64 {
    run.epochs.iter().filter_map(|epoch| finite(epoch.timing.seconds)).sum()
}

fn data(runs: &[RecordedRun], keys: &[(String, Vec<Option<String>>)], rows: &[Row], seeds: &[OverSeeds]) -> Value {
    let run = |run: &RecordedRun| json!({ "name": run.name, "folder": run.folder, "epochs": run.epochs.len(), "training_seconds": seconds(run) });
    let row = |row: &Row| {
        let value = |value: &(f64, f64)| json!({ "percent": value.0, "error": value.1 });
        let values: Vec<Value> = row.values.iter().map(|found| found.as_ref().map_or(Value::Null, value)).collect();
        json!({ "attack": row.name, "values": values, "difference": difference(row).as_ref().map(value) })
    };
    json!({
        "runs": runs.iter().map(run).collect::<Vec<_>>(),
        "keys": keys.iter().map(|(key, values)| json!({ "key": key, "values": values })).collect::<Vec<_>>(),
        "accuracies": rows.iter().map(row).collect::<Vec<_>>(),
        "over_seeds": seeds.iter().map(OverSeeds::json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_carries_both_errors() {
        let row = Row { name: "natural".into(), values: vec![Some((80.0, 0.3)), Some((82.0, 0.4))] };
        let (change, error) = difference(&row).unwrap();
        assert!((change - 2.0).abs() < 1e-12 && (error - 0.5).abs() < 1e-12);
        assert_eq!(difference(&Row { name: "x".into(), values: vec![Some((1.0, 0.1)), None] }), None);
    }
}
