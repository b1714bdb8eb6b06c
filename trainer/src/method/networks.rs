//! The networks of a run in memory: the student and its frozen teachers.

use std::collections::BTreeMap;
use std::sync::Arc;

use comm::Communicator;
use torch_ext::Sum;

use crate::config::Precision;
use crate::model::Model;
use crate::system::{Phase, timeline::Timeline};

/// The networks of a run.
pub struct Networks {
    /// The network being trained.
    pub student: Model,
    /// Frozen networks, by their names in the configuration.
    pub teachers: BTreeMap<String, Model>,
    /// The number formats of training, on the student's device.
    pub(crate) precision: Precision,
    /// The timeline of their forward passes.
    pub timeline: Timeline,
}

impl Networks {
    /// A student and its teachers. The teachers are frozen: their tensors may not change any more.
    pub fn new(student: Model, teachers: BTreeMap<String, Model>, precision: Precision) -> Self {
        let precision = precision.on(student.device().is_cuda());
        precision.lay_out(&student);
        for teacher in teachers.values() {
            precision.lay_out(teacher);
            precision.freeze(teacher);
        }
        Self { student, teachers, precision, timeline: Timeline::default() }
    }
}

/// The sum over the ranks for batch norm. It runs inside forward and backward passes, which cannot return errors.
pub fn sum_over(ranks: Arc<dyn Communicator>, timeline: Timeline) -> Sum {
    Arc::new(move |tensor| {
        let sum = || ranks.start_sum(tensor).and_then(|()| ranks.finish_sums());
        let summed = timeline.during_piece(Phase::Communication, "batch norm sum", sum);
        summed.unwrap_or_else(|error| panic!("batch norm across ranks: {error:#}"));
    })
}
