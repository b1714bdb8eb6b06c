//! The arithmetic of a table's runs, for estimates without their data.

use std::collections::{BTreeMap, HashMap};

use trainer::config::{RunConfig, Selection};
use trainer::cost::{self, Forward, ImageCounts};
use trainer::model::Form;

use super::file::DatasetSize;

/// Counts the operations of runs; each network is measured once.
#[derive(Default)]
pub(super) struct Costs {
    known: HashMap<Form, Forward>,
}

impl Costs {
    /// Floating-point operations of training a run on a data set of this size, and of choosing its weights: 2 for a
    /// multiply-add. Teachers are taken to be networks like the student.
    pub(super) fn flop(&mut self, config: &RunConfig, size: &DatasetSize) -> f64 {
        let form = Form { architecture: config.student.architecture, image: size.image, classes: size.classes };
        let forward = *self.known.entry(form).or_insert_with(|| Forward::of(form));
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
