//! Run folders with a changed file, as numbers for other programs.

use trainer::run::folder::RunFolder;

use super::histograms::of_alpha;
use super::images::pictures;
use super::scalars::{csv, scalars};
use super::tensorboard;
use crate::report::RecordedRun;
use crate::report::fuzz::changed_runs;

const INPUTS: u64 = 250;

#[test]
fn the_numbers_of_changed_runs_are_finite_or_refused_by_name() {
    changed_runs(72, INPUTS, &|run| {
        let config = RunFolder::at(run).config()?;
        let recorded = RecordedRun::read(run)?;
        let numbers = scalars(&recorded);
        assert!(numbers.iter().all(|number| number.value.is_finite()));
        assert!(!csv(&numbers).is_empty());
        let pictures = pictures(run);
        assert!(!tensorboard::file(0.0, &numbers, &of_alpha(&recorded, &config), &pictures).is_empty());
        Ok(())
    });
}
