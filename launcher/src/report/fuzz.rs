//! Run folders with a changed file: a report, or a mistake of the user that names the file.

use std::fs;
use std::path::Path;

use anyhow::Result;
use datasets::UserError;
use datasets::damage::{Dice, change_text, inputs};

use super::{data, page, write};

const INPUTS: u64 = 250;

/// Gives `read` a finished run folder in which one file is changed, anew for each input. Whatever it refuses is a mistake of
/// the user.
pub(crate) fn changed_runs(reader: usize, usual: u64, read: &dyn Fn(&Path) -> Result<()>) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/runs/version-1/finished");
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    fs::create_dir(&run).unwrap();
    let names = ["metrics.jsonl", "run.toml", "evaluation.json", "evaluation.samples.csv", "environment.toml"];
    for name in names {
        fs::copy(fixture.join(name), run.join(name)).unwrap();
    }
    read(&run).unwrap();
    let mut taken = 0;
    for input in 0..inputs(usual) {
        let mut dice = Dice::new(reader, input);
        // Most of what is read stands in the first of them.
        let name = names[(dice.below(8) as usize).saturating_sub(3)];
        let whole = [fs::read(run.join(name)).unwrap()];
        fs::write(run.join(name), change_text(&whole, &mut dice)).unwrap();
        match read(&run) {
            Ok(()) => taken += 1,
            Err(error) => assert!(error.is::<UserError>(), "input {input}, {name}: {error:#}"),
        }
        fs::write(run.join(name), &whole[0]).unwrap();
    }
    assert!(taken > 0, "nothing was accepted");
}

#[test]
fn changed_runs_are_reported_or_refused_by_name() {
    changed_runs(70, INPUTS, &|run| {
        let folders = [run.to_path_buf()];
        let page = page::html(&data::read(&folders)?);
        assert!(page.ends_with("</html>\n") && page.len() < 10_000_000);
        write::table(&folders).map(drop)
    });
}
