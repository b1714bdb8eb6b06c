//! `iad-launch runs [FOLDER]`: a line for each run.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use datasets::UserError;

use super::compare::text_over_seeds;
use super::found::{Best, FoundRun, find};
use crate::command::Runs;
use crate::console::{Out, bytes};
use crate::draw::{Grid, NOTHING, text};
use crate::report::{over_seeds, read};

const WIDTH: usize = 140;

/// Prints the runs of a folder.
///
/// # Errors
/// There is none; the terminal cannot be written to.
pub(crate) fn run(command: &Runs) -> Result<()> {
    let runs = find(&command.folder);
    if runs.is_empty() && !command.json {
        return Err(UserError::expected("a folder with run folders in it")
            .file(&command.folder)
            .value("no run.toml, three levels deep")
            .hint("`iad-launch CONFIG` makes a run in runs/")
            .into());
    }
    let shown = if command.json {
        serde_json::to_string_pretty(&runs)? + "\n"
    } else {
        text(&grid(&runs), WIDTH) + &seeds(&runs)
    };
    write!(Out, "{shown}").context("writing to the terminal")
}

/// Mean and deviation of runs that differ in their seed alone.
fn seeds(runs: &[FoundRun]) -> String {
    let evaluated = runs.iter().map(|run| run.folder.clone()).filter(|folder| folder.join("evaluation.json").exists());
    let evaluated: Vec<_> = evaluated.collect();
    // A damaged run is in the list.
    read(&evaluated).map(|runs| text_over_seeds(&over_seeds(&runs))).unwrap_or_default()
}

fn grid(runs: &[FoundRun]) -> Grid {
    let columns = ["run", "state", "epochs", "natural", "worst attack", "on", "size"];
    let row = |run: &FoundRun| {
        let of = run.of_epochs.map_or(String::new(), |of| format!(" of {of}"));
        let percent = |best: &Option<Best>, named: bool| match best {
            Some(best) if named => format!("{:.2} % {}", best.percent, best.attack),
            Some(best) => format!("{:.2} %", best.percent),
            None => NOTHING.to_string(),
        };
        vec![
            run.folder.display().to_string(),
            run.state.word().to_string(),
            format!("{}{of}", run.epochs),
            percent(&run.natural, false),
            percent(&run.robust, true),
            run.split.clone().unwrap_or_else(|| NOTHING.to_string()),
            bytes(run.bytes as f64),
        ]
    };
    Grid { columns: columns.map(str::to_owned).into(), rows: runs.iter().map(row).collect() }
}
