//! What a step may not leave behind: a gradient, a running statistic or a momentum that is not finite.

use tch::{Kind, Tensor, no_grad};

use crate::config::{self, OnCollapse};
use crate::model::{Model, Named};
use crate::step::gradients::Gradients;
use crate::step::optimizer::{Optimizer, norm};

/// A network that learns, with its gradients and its optimizer.
#[derive(Clone, Copy)]
pub struct Trained<'a> {
    /// The name of a learner; none for the student.
    pub learner: Option<&'a str>,
    /// The network.
    pub model: &'a Model,
    /// Its parameters and gradients.
    pub parameters: &'a Gradients,
    /// Its optimizer with its state.
    pub optimizer: &'a Optimizer,
}

impl Trained<'_> {
    /// The number of places that a guard distinguishes in it.
    fn places(&self) -> usize {
        self.parameters.gradients.numel() + self.model.flat_statistics.numel() + 1
    }
}

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
        let (finite, place, bound) = optimizer.judge(parameters).unwrap_or_else(|| {
            let (finite, place) = all_finite(&parameters.gradients);
            (finite, place, optimizer.bound(parameters))
        });
        let counted = |tensor: &Tensor| tensor.numel() as i64;
        let (gradients, statistics) = (counted(&parameters.gradients), &student.flat_statistics);
        let behind = place.full_like(gradients + counted(statistics));
        let bounded = bound.isfinite();
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

/// The judgement of all networks that learn: the places of one follow those of the networks before it.
pub fn all_of<'a>(trained: impl Iterator<Item = Trained<'a>>) -> Guard {
    let judged = trained.map(|one| (Guard::of(one.parameters, one.model, one.optimizer), one.places()));
    let both = |(first, before): (Guard, usize), (second, places): (Guard, usize)| {
        let place = (second.place + before as i64).where_self(&first.finite, &first.place);
        (Guard { finite: first.finite.logical_and(&second.finite), place }, before + places)
    };
    judged.reduce(both).expect("a run trains its student").0
}

/// What the steps of a run share of their judgement, on the device. Captured work reads and writes it at each replay.
pub struct Watch {
    /// Whether the norm of the gradient is measured.
    measures: bool,
    /// Whether a gradient beyond the limit moves nothing.
    masks: bool,
    /// The largest norm of a gradient that is none, float64 scalar.
    limit: Tensor,
    /// Whether a step beyond the limit also holds the steps after it, bool scalar.
    holds: Tensor,
    /// Whether no step is held, bool scalar.
    free: Tensor,
}

/// What a step may do.
pub struct Verdict {
    /// Whether it moves anything, bool scalar.
    pub moves: Tensor,
    /// The norm of its gradient, float64 scalar; 0 where it is not measured.
    pub norm: Tensor,
}

impl Watch {
    /// A watch over steps of parameters like these.
    pub fn new(config: &config::Guard, parameters: &Gradients) -> Self {
        let device = parameters.values.device();
        let flag = |value: bool| Tensor::full([], i64::from(value), (Kind::Bool, device));
        Self {
            measures: config.gradient_factor > 0.0,
            masks: config.gradient_factor > 0.0 && config.on_collapse != OnCollapse::Warn,
            limit: Tensor::full([], f64::INFINITY, (Kind::Double, device)),
            holds: flag(false),
            free: flag(true),
        }
    }

    /// Sets the largest norm of the next steps' gradients, and whether a larger one holds the steps after it. The host does not
    /// wait.
    pub fn set_limit(&mut self, limit: f64, holds: bool) {
        if self.masks {
            let _ = self.limit.fill_(limit);
            let _ = self.holds.fill_(i64::from(holds));
        }
    }

    /// Lets steps move again.
    pub fn release(&mut self) {
        let _ = self.free.fill_(1);
    }

    /// Judges a step whose gradients, of one network or of several, and statistics are `finite` or not. A step that is not finite
    /// holds those after it: the host learns of it one step late, and finds the state as it was before.
    pub fn judge<'a>(&mut self, finite: &Tensor, parameters: impl Iterator<Item = &'a Gradients>) -> Verdict {
        let free = self.free.logical_and(finite);
        let norm = match self.measures {
            true => {
                let norms = parameters.map(|one| norm(&one.gradients));
                norms.reduce(|one, other| one.hypot(&other)).expect("a run trains its student")
            }
            false => self.limit.zeros_like(),
        };
        let (moves, free) = if self.masks {
            let within = norm.le_tensor(&self.limit);
            (free.logical_and(&within), free.logical_and(&within.logical_or(&self.holds.logical_not())))
        } else {
            (free.shallow_clone(), free)
        };
        no_grad(|| self.free.copy_(&free));
        Verdict { moves, norm }
    }
}

/// What is not finite at the `place` of a guard of all networks, in words.
pub fn name_among<'a>(place: usize, trained: impl Iterator<Item = Trained<'a>>) -> String {
    let Some((one, place)) = network_at(place, trained) else { return "some value is not finite".into() };
    let found = name_at(place, one.parameters, one.model);
    one.learner.map_or(found.clone(), |name| format!("{name}: {found}"))
}

/// The network of a `place` of a guard of all networks, and the place in it.
pub fn network_at<'a>(mut place: usize, trained: impl Iterator<Item = Trained<'a>>) -> Option<(Trained<'a>, usize)> {
    for one in trained {
        match place.checked_sub(one.places()) {
            Some(rest) => place = rest,
            None => return Some((one, place)),
        }
    }
    None
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
