//! Run folders with a changed file, listed and compared.

use super::compare::text_of;
use super::found::find;
use crate::report::fuzz::changed_runs;

const INPUTS: u64 = 250;

#[test]
fn changed_runs_are_listed_and_compared_or_refused_by_name() {
    changed_runs(71, INPUTS, &|run| {
        let found = find(run);
        // Without a run.toml of that name it would not be there.
        assert_eq!(found.len(), 1);
        text_of(&[run.to_path_buf(), run.to_path_buf()], false)?;
        text_of(&[run.to_path_buf(), run.to_path_buf()], true).map(drop)
    });
}
