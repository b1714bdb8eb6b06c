//! One optimisation step. Read this first.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Error, Result};
use comm::{Communicator, Single};
use datasets::Shard;
use tch::{Tensor, no_grad};
use torch_ext::Queue;

use crate::attack::{Attack, Noise};
use crate::batch::Batch;
use crate::config::{AttackKind, Precision, RunConfig};
use crate::gradients::Gradients;
use crate::loss::Term;
use crate::model::{Mode, Model};
use crate::observe::{Computed, Observed, Observer};
use crate::optimizer::Sgd;
use crate::runner::{Inputs, Key, Runner, can_record};
use crate::statistics::average_over_ranks;
use crate::timeline::Phase;
use crate::views::{Images, Networks, Views};

/// A student, its optimizer, and how they move.
pub struct Step {
    /// The student and its teachers.
    pub networks: Networks,
    /// The student's parameters and gradients.
    pub parameters: Gradients,
    /// The momentum.
    pub optimizer: Sgd,
    attack: Option<Box<dyn Attack>>,
    attack_mode: Mode,
    objective: Term,
    observer: Observer,
    accumulate: usize,
    precision: Precision,
    ranks: Arc<dyn Communicator>,
    /// Does whole steps.
    runner: Runner<Computed>,
    /// Does the parts of steps, up to the sums over the ranks.
    part_runner: RefCell<Runner<Values>>,
    warning: Option<String>,
    _queue: Option<Queue>,
}

/// What there is to see of a part of a step: numbers `[K]`, float64, and the names of the first.
type Values = (Vec<String>, Tensor);

impl Step {
    /// Prepares steps as `config` describes them; every rank starts from rank 0's parameters.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn new(config: &RunConfig, mut networks: Networks, ranks: Arc<dyn Communicator>) -> Result<Self> {
        // A transport cannot be recorded, and one rank needs none.
        let alone = config.precision.cuda_graphs && ranks.world_size() == 1;
        let ranks = if alone { Arc::new(Single) } else { ranks };
        let parameters = Gradients::flatten(&mut networks.student, Arc::clone(&ranks), &config.comm)?;
        parameters.take_time_from(&networks.timeline)?;
        let optimizer = Sgd::new(&parameters.values, config.optimizer.momentum, config.optimizer.weight_decay);
        let attack: Option<Box<dyn Attack>> = match config.attack.kind {
            AttackKind::None => None,
            AttackKind::Pgd => Some(Box::new(config.attack.pgd())),
        };
        let objective = Term::plain("attack", Images::Adversarial, config.attack.towards.clone());
        let attack_mode = config.attack.batch_norm.mode();
        let observer = Observer::new(config);
        let (accumulate, precision) = (config.batch.accumulate, config.precision);
        let queue =
            precision.cuda_graphs.then(|| Queue::own(parameters.values.device())).transpose().map_err(Error::msg)?;
        let mut step = Self {
            networks,
            parameters,
            optimizer,
            attack,
            attack_mode,
            objective,
            observer,
            accumulate,
            precision,
            ranks,
            runner: Runner::default(),
            part_runner: RefCell::default(),
            warning: None,
            _queue: queue,
        };
        if precision.cuda_graphs {
            let device = step.parameters.values.device();
            let recorded = if can_record(device) { step.record() } else { Err("only GPUs do so".to_string()) };
            step.warning = recorded.err().map(|reason| not_recorded(&reason));
        }
        Ok(step)
    }

    /// From here on steps are recorded and replayed; with several ranks, what comes before the sums over them. Or not, for the
    /// returned reason.
    fn record(&mut self) -> Result<(), String> {
        let Networks { student, timeline, .. } = &self.networks;
        if student.across_ranks {
            return Err(
                "batch norm sums over the ranks in them; with batch_norm.across_ranks = \"local\" they are".into()
            );
        }
        // libtorch's update takes its rate from a GPU in float32 alone.
        let called_update = student.device().is_cuda() && student.kind() == tch::Kind::Double;
        if self.ranks.world_size() == 1 && !called_update {
            self.runner = Runner::recording(student.device(), timeline);
        } else {
            self.part_runner = RefCell::new(Runner::recording(student.device(), timeline));
            self.parameters.sum_at_the_end();
        }
        Ok(())
    }

    /// What the user should know, said once.
    pub fn take_warning(&mut self) -> Option<String> {
        let refusal = self.runner.take_refusal().or_else(|| self.part_runner.get_mut().take_refusal());
        self.warning.take().or(refusal.map(|reason| not_recorded(&reason)))
    }

    /// Attacks the student on `batch`, and moves it by `rate` against the gradient of `terms` over the global batch.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn run(&mut self, batch: &Batch, noise: &Noise, terms: &[Term], rate: f64) -> Result<Observed> {
        let mut runner = std::mem::take(&mut self.runner);
        let computed = runner.run(&Key::of(batch, terms), batch, noise, rate, |inputs| self.compute(&inputs, terms));
        self.runner = runner;
        Observed::send(&*computed?)
    }

    fn compute(&mut self, inputs: &Inputs, terms: &[Term]) -> Result<Computed> {
        let Inputs { batch, noise, rate } = inputs;
        let timeline = self.networks.timeline.clone();
        let _products = self.precision.products();
        let statistics = self.networks.student.flat_statistics.copy();
        self.parameters.zero();
        let shard = Shard { rank: self.ranks.rank(), world_size: self.ranks.world_size() };
        let parts = batch.parts(self.accumulate, shard);
        let mut observed: Option<Values> = None;
        for (index, rows) in parts.iter().enumerate() {
            if index + 1 == parts.len() {
                self.parameters.expect_last_pass()?;
            }
            let part = self.part(&batch.rows(rows), &noise.rows(rows), terms)?;
            // A replay leaves its numbers where the one before did.
            let values = observed.map_or_else(|| part.1.copy(), |(_, sums)| sums + &part.1);
            observed = Some((part.0.clone(), values));
        }
        let (names, values) = observed.context("a step has a part")?;
        timeline.during(Phase::Communication, "gradients", || self.parameters.finish())?;
        timeline.during(Phase::Communication, "running statistics", || {
            average_over_ranks(&self.networks.student, batch, self.ranks.as_ref())
        })?;

        // Everything below is masked by this flag on the device; the host reads it one step late.
        let (finite, place) = finite(&self.parameters.gradients);
        timeline.during(Phase::Update, "update", || {
            self.optimizer.step(&mut self.parameters, *rate, &finite);
            keep_statistics(&self.networks.student, &statistics, &finite);
        });

        timeline.during(Phase::Communication, "observed", || {
            self.ranks.start_sum(&values)?;
            self.ranks.finish_sums()
        })?;
        Ok(Computed::new(names, &values, &finite, &place))
    }

    fn part(&self, batch: &Batch, noise: &Noise, terms: &[Term]) -> Result<Rc<Values>> {
        let work = |inputs: Inputs| Ok(self.learn(inputs.batch, inputs.noise, terms));
        self.part_runner.borrow_mut().run(&Key::of(batch, terms), batch, noise, 0.0, work)
    }

    /// Attacks the student on a part of the batch and adds the gradient of `terms` to those of the parts before.
    fn learn(&self, batch: &Batch, noise: &Noise, terms: &[Term]) -> Values {
        let _casts = self.precision.casts();
        let timeline = &self.networks.timeline;
        let fixed = Views::new(&self.networks, self.attack_mode, &batch.images, &batch.images);
        let adversarial = timeline.during(Phase::Attack, "attack", || self.adversarial(batch, noise, &fixed));
        let asked = terms.iter().filter(|term| term.weight != 0.0).flat_map(Term::asks).chain(self.observer.asks());
        let views = Views::new(&self.networks, Mode::Train, &batch.images, &adversarial);
        let views = views.taking(&fixed).expecting(asked);
        let global_count = batch.global_count as f64;
        let mut summands = vec![];
        timeline.during(Phase::Forward, "forward", || {
            for term in terms {
                match term.weight {
                    0.0 => views.pass(term.of),
                    _ => summands.push((term, term.evaluate(&views, &batch.labels, global_count))),
                }
            }
        });
        let total: Tensor = summands.iter().map(|(_, value)| value).sum();
        timeline.during(Phase::Backward, "backward", || total.backward());
        let look = || self.observer.observe(&views, &batch.labels, &summands);
        timeline.during(Phase::Other, "observe", look)
    }

    /// The student's adversarial images of the batch.
    fn adversarial(&self, batch: &Batch, noise: &Noise, fixed: &Views) -> Tensor {
        let Some(attack) = &self.attack else { return batch.images.shallow_clone() };
        let steps = Cell::new(0);
        attack.perturb(&batch.images, noise, &|candidate| {
            steps.set(steps.get() + 1);
            self.networks.timeline.mark("step", steps.get());
            self.objective.evaluate(&fixed.with_candidate(candidate), &batch.labels, 1.0)
        })
    }
}

fn not_recorded(reason: &str) -> String {
    format!("precision.cuda_graphs: steps are not recorded, and run one operation at a time: {reason}")
}

/// Takes the running statistics back to `before` where the gradient was not finite.
fn keep_statistics(student: &Model, before: &Tensor, finite: &Tensor) {
    let statistics = &student.flat_statistics;
    no_grad(|| statistics.shallow_clone().copy_(&statistics.where_self(finite, before)));
}

/// Whether all `values` are finite, and where one stands that is not. The largest and the smallest tell: of values that are
/// not numbers, both are the first.
fn finite(values: &Tensor) -> (Tensor, Tensor) {
    let ((largest, at_largest), (smallest, at_smallest)) = (values.max_dim(0, false), values.min_dim(0, false));
    let bounded = largest.isfinite();
    (bounded.logical_and(&smallest.isfinite()), at_smallest.where_self(&bounded, &at_largest))
}

#[cfg(test)]
mod tests;
