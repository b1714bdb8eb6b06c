//! The arithmetic of a table's runs, estimated without their data.

use std::collections::{BTreeMap, HashMap};

use trainer::config::{RunConfig, Selection};
use trainer::model::ModelSpec;
use trainer::run::cost::{self, Forward, ImageCounts};

use super::file::DatasetSize;

/// Counts the operations of runs; each network is counted once.
#[derive(Default)]
pub(super) struct Costs {
    /// Networks by their description.
    known: HashMap<String, Forward>,
}

impl Costs {
    /// Floating-point operations of training a run on a data set of this size and of choosing its weights; a
    /// multiply-add counts as 2. Teachers are assumed to be networks like the student.
    pub(super) fn flop(&mut self, config: &RunConfig, size: &DatasetSize) -> f64 {
        let form = ModelSpec::of(&config.student, size.image, size.classes);
        let forward = *self.known.entry(form.to_string()).or_insert_with(|| Forward::of(form));
        let held_out = match config.evaluation.selection {
            Selection::HeldOut => (size.train as f64 * config.evaluation.held_out).round() as u64,
            Selection::Test | Selection::None => 0,
        };
        let selection = if config.evaluation.selection == Selection::Test { size.test as u64 } else { held_out };
        let images = ImageCounts { train: size.train as u64 - held_out, selection, test: size.test as u64 };
        let cost = cost::of(config, forward, &BTreeMap::new(), images);
        2.0 * (cost.training + cost.selection) as f64
    }
}
