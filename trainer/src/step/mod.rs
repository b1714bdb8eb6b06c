//! One optimisation step. Read this file first; the other files of this folder are its parts.
//!
//! Uses `system`, `config`, `model` and `method`.

mod adversary;
mod ascent;
pub mod batch;
pub mod diagnostics;
mod gradient_alignment;
pub mod gradients;
pub mod graph_capture;
pub mod guard;
pub mod learners;
pub mod learning_rate;
pub mod optimizer;
mod recorder;
mod remembering;
pub mod running_statistics;
pub mod stopping;
pub mod sums;
mod weight_perturbation;

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};
use comm::{Communicator, Single};
use datasets::Shard;
use tch::Tensor;
use torch_ext::has_fused_batch_norm;

use crate::config::{Precision, RunConfig, Term};
use crate::method::attack::{Free, Noise};
use crate::method::networks::Networks;
use crate::method::pass_plan::PassPlan;
use crate::method::views::Views;
use crate::model::Mode;
use crate::step::adversary::{Adversary, Attacked};
use crate::step::batch::Batch;
use crate::step::diagnostics::{Computed, Observed, Observer, Values};
use crate::step::gradient_alignment::GradientAlignment;
use crate::step::gradients::Gradients;
use crate::step::graph_capture::{Inputs, Key};
use crate::step::guard::{Guard, Trained, Verdict, Watch, all_of};
use crate::step::learners::Learner;
use crate::step::optimizer::Optimizer;
use crate::step::recorder::{PartRecorder, Recorder};
use crate::step::running_statistics::{Statistics, average_over_ranks};
use crate::step::stopping::{Ask, go_on};
use crate::step::weight_perturbation::WeightPerturbation;
use crate::system::{Phase, summing};

/// One optimisation step: the work, and the recorder that captures and replays it.
pub struct Step {
    /// The student, its teachers and its optimizer.
    pub work: Work,
    recorder: Recorder,
    warning: Option<String>,
}

impl Step {
    /// Prepares steps of `config`. Every rank starts from the parameters of rank 0.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn new(config: &RunConfig, networks: Networks, ranks: Arc<dyn Communicator>) -> Result<Self> {
        // One rank needs no transport in its graphs, unless it is asked for.
        let precision = networks.precision;
        let alone = precision.cuda_graphs && ranks.world_size() == 1 && !config.comm.in_graphs;
        let ranks = if alone { Arc::new(Single) } else { ranks };
        let mut work = Work::new(config, networks, Arc::clone(&ranks))?;
        let mut recorder = Recorder::new(precision, &work.networks, &ranks, config.comm.in_graphs)?;
        if config.awp.is_some() {
            recorder.leave_parts_alone();
        }
        if let Some(reason) = config.not_recordable() {
            recorder.leave_all_alone(reason);
        }
        if recorder.captures_parts() {
            // A captured part cannot start a sum, and one rank may replay a part that another one runs eagerly.
            work.parameters.sum_at_the_end();
            work.adversary.asks = false;
        }
        let student = &work.networks.student;
        let no_kernels = config.batch_norm.fused && student.across_ranks && !has_fused_batch_norm(student.device());
        let warning = no_kernels.then(|| {
            "batch_norm.fused: only GPUs have these kernels; statistics over the ranks are computed without them".into()
        });
        Ok(Self { work, recorder, warning })
    }

    /// Attacks the student on `batch` and takes one step of size `rate` down the gradient of `terms` over the global
    /// batch.
    ///
    /// # Errors
    /// A failure of the transport.
    pub fn run(&mut self, batch: &Batch, noise: &Noise, terms: &[Term], rate: f64) -> Result<Observed> {
        self.run_until(&go_on, batch, noise, terms, rate)
    }

    /// Like [`run`](Self::run), until the answer to `ask` ends the step.
    ///
    /// # Errors
    /// [`GivenUp`](stopping::GivenUp): the state of this rank is that before the step. Or a failure of the transport.
    pub fn run_until(&mut self, ask: Ask, batch: &Batch, noise: &Noise, terms: &[Term], rate: f64) -> Result<Observed> {
        let Self { work, recorder, .. } = self;
        let learners_move = work.learners.iter().map(Learner::moves).collect();
        let key = Key::of(batch, terms).perturbing(work.perturbation.active).moving(learners_move);
        // Captured work may not ask the other ranks.
        let ask = || if torch_ext::is_recording() { Ok(()) } else { ask() };
        let replays = work.adversary.free.as_ref().map_or(1, Free::begin);
        let mut update =
            |ask: Ask| recorder.step(&key, batch, noise, rate, |inputs, parts| work.step(&inputs, terms, parts, ask));
        let mut computed = update(&ask)?;
        // The updates of a batch are one step: it ends before the first of them, or not at all.
        for _ in 1..replays {
            computed = Rc::new(update(&go_on)?.behind(&computed));
        }
        Observed::send(&computed)
    }

    /// A warning about batch norm, fused kernels or graph capture for the user, returned once.
    pub fn take_warning(&mut self) -> Option<String> {
        self.warning.take().or_else(|| self.work.networks.unfused.take()).or_else(|| self.recorder.take_warning())
    }
}

/// The student, its teachers, its optimizer, the networks that learn beside it, and the method that trains them.
pub struct Work {
    /// The student, its teachers and the learners.
    pub networks: Networks,
    /// The student's parameters and gradients.
    pub parameters: Gradients,
    /// The optimizer with its state.
    pub optimizer: Optimizer,
    /// The networks that learn beside the student.
    pub learners: Vec<Learner>,
    /// What steps may move.
    pub watch: Watch,
    perturbation: WeightPerturbation,
    alignment: Option<GradientAlignment>,
    adversary: Adversary,
    observer: Observer,
    accumulate: usize,
    precision: Precision,
    ranks: Arc<dyn Communicator>,
}

/// A part of a batch.
struct Part {
    batch: Batch,
    noise: Noise,
    /// Whether it is the last one of its step.
    last: bool,
    /// Its images over all ranks.
    images_of_all: usize,
}

impl Work {
    fn new(config: &RunConfig, mut networks: Networks, ranks: Arc<dyn Communicator>) -> Result<Self> {
        let precision = networks.precision;
        let parameters = Gradients::flatten(&mut networks.student, Arc::clone(&ranks), &config.comm)?;
        let learners = Learner::all(config, &mut networks, &ranks)?;
        networks.prepare(config, Arc::clone(&ranks))?;
        parameters.take_time_from(&networks.timeline)?;
        let adversary = Adversary::new(&config.attack, networks.kernels.as_ref());
        Ok(Self {
            optimizer: Optimizer::new(&config.optimizer, &parameters, &networks.student)
                .fused(networks.kernels.clone()),
            watch: Watch::new(&config.guard, &parameters),
            perturbation: WeightPerturbation::new(config),
            alignment: GradientAlignment::new(config),
            networks,
            parameters,
            learners,
            adversary,
            observer: Observer::new(config),
            accumulate: config.batch.accumulate,
            precision,
            ranks,
        })
    }

    /// Begins the steps of `epoch`.
    pub fn begin_epoch(&mut self, config: &RunConfig, epoch: u64) {
        self.perturbation.active = config.perturbs_weights(epoch);
    }

    /// All that learns: the student first, then the learners in the order of their names.
    pub fn trained(&self) -> impl Iterator<Item = Trained<'_>> {
        let Self { networks, parameters, optimizer, learners, .. } = self;
        let student = Trained { learner: None, model: &networks.student, parameters, optimizer };
        let learners = learners.iter().map(|Learner { name, parameters, optimizer, .. }| Trained {
            learner: Some(name),
            model: &networks.learners[name],
            parameters,
            optimizer,
        });
        std::iter::once(student).chain(learners)
    }

    /// The whole step: gradients of each part of the batch, their all-reduce, the update, the numbers.
    fn step(&mut self, inputs: &Inputs, terms: &[Term], recorder: &mut PartRecorder, ask: Ask) -> Result<Computed> {
        let Inputs { batch, rate, .. } = inputs;
        let timeline = self.networks.timeline.clone();
        let _products = self.precision.products();
        let statistics: Vec<Statistics> = self.networks.trained().map(Statistics::of).collect();
        let learned = self.learn_parts(inputs, terms, recorder, ask);
        if learned.is_err() {
            self.perturbation.give_up(&self.parameters);
            statistics.iter().zip(self.networks.trained()).for_each(|(before, model)| before.restore(model));
        }
        let (names, values) = learned?;
        let finish = || self.trained().try_for_each(|one| one.parameters.finish());
        timeline.during(Phase::Communication, "gradients", finish)?;
        timeline.during(Phase::Communication, "running statistics", || {
            self.networks.trained().try_for_each(|model| average_over_ranks(model, batch, &self.ranks))
        })?;

        // These flags on the device mask everything below; the host reads them one step late.
        let Guard { finite, place } = all_of(self.trained());
        let gradients = std::iter::once(&self.parameters).chain(self.learners.iter().map(|one| &one.parameters));
        let Verdict { moves, norm } = self.watch.judge(&finite, gradients);
        timeline.during(Phase::Update, "update", || {
            self.optimizer.step(&mut self.parameters, *rate, &moves);
            self.perturbation.take_back(&self.parameters, &moves);
            self.learners.iter_mut().for_each(|learner| learner.step(&moves));
            statistics.iter().zip(self.networks.trained()).for_each(|(before, model)| before.keep(model, &moves));
        });

        timeline.during(Phase::Communication, "observed", || summing::at_once(&self.ranks, &values))?;
        let values = remembering::keep(&self.networks, values, &moves);
        Ok(Computed::new(names, &values, [&finite, &place, &norm]))
    }

    /// Adds up the gradients and the numbers of all parts of the batch.
    fn learn_parts(
        &mut self,
        inputs: &Inputs,
        terms: &[Term],
        recorder: &mut PartRecorder,
        ask: Ask,
    ) -> Result<Values> {
        let attacked = self.ascend(inputs, terms, ask)?;
        self.parameters.zero();
        self.learners.iter_mut().for_each(|learner| learner.parameters.zero());
        let mut observed: Option<Values> = None;
        for (index, Part { batch, noise, last, images_of_all }) in self.parts(inputs).into_iter().enumerate() {
            ask()?;
            self.networks.expect(batch.samples.len(), images_of_all);
            let part = recorder.part(&Key::of(&batch, terms), &batch, &noise, |inputs| {
                self.learn(&inputs, terms, last, attacked.get(index), ask)
            })?;
            // A replay overwrites the numbers of the replay before it.
            let values = observed.map_or_else(|| part.1.copy(), |(_, sums)| sums + &part.1);
            observed = Some((part.0.clone(), values));
        }
        observed.context("a step has a part")
    }

    /// The parts of the batch on this rank.
    fn parts(&self, Inputs { batch, noise, .. }: &Inputs) -> Vec<Part> {
        let shard = Shard { rank: self.ranks.rank(), world_size: self.ranks.world_size() };
        let all = batch.parts(self.accumulate, shard);
        let part = |(index, rows)| Part {
            batch: batch.rows(rows),
            noise: noise.rows(rows),
            last: index + 1 == all.len(),
            images_of_all: batch.images_of_part(index, all.len()),
        };
        all.iter().enumerate().map(part).collect()
    }

    /// Attacks the student on a part of the batch, perhaps the last one, unless it is `attacked` already, and adds the
    /// gradient of `terms` to those of earlier parts.
    fn learn(
        &self,
        inputs: &Inputs,
        terms: &[Term],
        last: bool,
        attacked: Option<&Attacked>,
        ask: Ask,
    ) -> Result<Values> {
        let Inputs { batch, noise, .. } = inputs;
        let _casts = self.precision.casts();
        let timeline = &self.networks.timeline;
        let now;
        let attacked = match attacked {
            Some(attacked) => attacked,
            None => {
                now = self.adversary.attack(&self.networks, batch, noise, terms, ask)?;
                &now
            }
        };
        if last {
            self.parameters.expect_last_pass()?;
        }
        let views = self.views(Mode::Train, batch, attacked, terms);
        let global_count = batch.global_count as f64;
        let mut summands = vec![];
        timeline.during(Phase::Forward, "forward", || {
            for term in terms {
                match term.weight {
                    0.0 => views.forward_for_statistics(&term.network, term.of),
                    _ => summands.push((term, term.evaluate(&views, &batch.labels, global_count))),
                }
            }
            remembering::balance(&views, &batch.labels, global_count, &mut summands);
            remembering::multiply(&views, &batch.labels, global_count, &mut summands);
            if let Some(alignment) = &self.alignment {
                summands.push((&alignment.term, alignment.evaluate(&self.networks, batch, noise)));
            }
        });
        let total: Tensor = summands.iter().map(|(_, value)| value).sum();
        timeline.during(Phase::Backward, "backward", || total.backward());
        if let Some(free) = &self.adversary.free {
            free.climb(&batch.images, &attacked.adversarial);
        }
        Ok(timeline.during(Phase::Other, "observe", || {
            let classes = batch.classes();
            let values = self.observer.observe(&views, &classes, &summands);
            remembering::with_sums(&self.networks, &views, &classes, attacked.survived.as_ref(), values)
        }))
    }

    /// The views of an attacked part of the batch.
    fn views<'a>(&'a self, mode: Mode, batch: &'a Batch, attacked: &'a Attacked, terms: &[Term]) -> Views<'a> {
        let plan = PassPlan::new(terms, &self.observer.diagnosed);
        let views = Views::new(&self.networks, mode, &batch.images, &attacked.adversarial);
        views.learning().knowing(&attacked.teachers).following(&plan)
    }
}

#[cfg(test)]
mod tests;
