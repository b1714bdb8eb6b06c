//! What a step may not leave behind: a gradient, a running statistic or a momentum that is not finite.

use tch::Tensor;

use crate::model::{Model, Named};
use crate::step::gradients::Gradients;
use crate::step::optimizer::Optimizer;

/// The judgement of a step, on the device: no host waits for it.
pub struct Guard {
    /// Whether the step may move anything: bool scalar.
    pub finite: Tensor,
    /// Where a value is that is not finite, int64 scalar: gradients first, then running statistics, then the momentum as a
    /// whole. Anywhere if all are.
    pub place: Tensor,
}

impl Guard {
    /// Judges the gradients and the running statistics that a step has computed, before its update. The new momentum is
    /// bounded by the largest values that it is made of.
    pub fn of(parameters: &Gradients, student: &Model, optimizer: &Optimizer) -> Self {
        let (finite, place) = all_finite(&parameters.gradients);
        let counted = |tensor: &Tensor| tensor.numel() as i64;
        let (gradients, statistics) = (counted(&parameters.gradients), &student.flat_statistics);
        let behind = place.full_like(gradients + counted(statistics));
        let bounded = optimizer.bound(parameters).isfinite();
        let (sound, elsewhere) = match counted(statistics) {
            0 => (bounded, behind),
            _ => {
                let (finite, place) = all_finite(statistics);
                (finite.logical_and(&bounded), behind.where_self(&finite, &(place + gradients)))
            }
        };
        Self { place: elsewhere.where_self(&finite, &place), finite: finite.logical_and(&sound) }
    }
}

/// What is not finite at a guard's `place`, in words.
pub fn name_at(place: usize, parameters: &Gradients, student: &Model) -> String {
    let Some(mut left) = place.checked_sub(parameters.gradients.numel()) else {
        return format!("the gradient is not finite, as in {}", parameters.name_at(place));
    };
    for Named { name, tensor } in &student.statistics {
        match left.checked_sub(tensor.numel()) {
            Some(rest) => left = rest,
            None => return format!("the running statistics are not finite, as in {name}"),
        }
    }
    "the momentum would not be finite".into()
}

/// Whether all `values` are finite, and where one is that is not. The largest and the smallest tell: of values that are not
/// numbers, both are the first.
pub(super) fn all_finite(values: &Tensor) -> (Tensor, Tensor) {
    let ((largest, at_largest), (smallest, at_smallest)) = (values.max_dim(0, false), values.min_dim(0, false));
    let bounded = largest.isfinite();
    (bounded.logical_and(&smallest.isfinite()), at_smallest.where_self(&bounded, &at_largest))
}
