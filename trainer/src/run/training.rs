//! The training loop: epochs of steps, and what happens between them.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use datasets::{Draws, Extra, Pipeline, Purpose, Shard, per_class};
use tch::no_grad;

use crate::config::Term;
use crate::method::attack::Noise;
use crate::run::active::{Ending, Run};
use crate::run::averages::Averages;
use crate::run::clock::Clock;
use crate::run::context::RunContext;
use crate::run::effort::Effort;
use crate::run::events::{Event, ExtraImages, RunStarted};
use crate::run::metrics::{JsonLines, Sink};
use crate::run::networks::build;
use crate::run::normalisation;
use crate::run::pending::{Pending, Taken};
use crate::run::requests::{Requests, ask_within_step};
use crate::run::state;
use crate::run::trace::Tracer;
use crate::run::writer::Writer;
use crate::step::batch::Batch;
use crate::step::learners::Place;
use crate::step::stopping::GivenUp;
use crate::step::{Step, Work};
use crate::system::agreement::agree;
use crate::system::{FaultKind, Phase, Stage};
use crate::weights::checkpoint::Progress;

/// Trains the student from where the run folder is to the end, or until it is told to stop. The leader writes the folder and
/// tells `console`; the caller has checked and claimed the folder.
///
/// # Errors
/// [`Agreed`](crate::system::agreement::Agreed) errors, which all ranks know of; any other error is this rank's alone, and the
/// caller must abort the others.
pub fn train(context: &RunContext, console: &mut dyn Sink) -> Result<Ending> {
    let RunContext { config, folder, .. } = *context;
    let ranks = context.ranks();
    agree(ranks, config.check_extra_count(ranks.world_size()).map_err(Into::into))?;
    agree(ranks, config.check_grad_align_on(ranks.world_size()).map_err(Into::into))?;
    agree(ranks, normalisation::check(context))?;
    let networks = build(context)?;
    let effort = Effort::new(config, &networks, ranks)?;
    let mut step = Step::new(config, networks, Arc::clone(&context.place.ranks))?;
    let averages = Averages::new(config, &step.work.parameters, &step.work.networks.student);
    let (state, events) = state::restore(context, &mut step, &averages)?;
    let journal = if ranks.is_leader() {
        Some(JsonLines::open(&folder.file("metrics.jsonl"), state.metrics_bytes)?)
    } else {
        None
    };
    let clock = Clock::new(state.seconds, effort);
    let timeline = &step.work.networks.timeline;
    let file = folder.file(&format!("trace-{}.json", state.progress.step));
    let tracer = context.trace.map(|steps| Tracer::begin(file, steps, timeline, ranks)).transpose()?;
    timeline.pause();
    let saved = Instant::now();
    let resumed = state.progress.step;
    let read = Some(resumed).filter(|step| *step > 0);
    let writer = ranks.is_leader().then(|| Writer::start(context, read)).transpose()?;
    let mut run = Run {
        context,
        console,
        journal,
        step,
        averages,
        state,
        clock,
        tracer,
        saved,
        writer,
        asked: None,
        slow: true,
        back_to: None,
    };
    run.console.note(&format!("precision {}", config.precision.at_work(context.place.device)));
    if resumed > 0 {
        run.console.note(&format!("going on from step {resumed}"));
    }
    for event in &events {
        match event {
            // What was wrong with files is no part of the run: its metrics are those of an unbroken one.
            Event::Warned { .. } => run.console.record(event)?,
            event => run.record(event)?,
        }
    }
    let ended = run.epochs();
    // What is being written is whole before the run ends, also by an error.
    let saved = run.finish_save();
    let ending = ended?;
    saved?;
    ranks.barrier()?;
    Ok(ending)
}

impl Run<'_> {
    fn epochs(&mut self) -> Result<Ending> {
        let ranks = self.context.ranks();
        let pipeline = Pipeline {
            source: Arc::clone(&self.context.prepared.train),
            extra: self.context.prepared.extra.clone(),
            augment: self.context.config.data.augment.clone(),
            shard: Shard { rank: ranks.rank(), world_size: ranks.world_size() },
            global_batch: self.context.global_batch(),
            seed: self.context.config.seed,
            ahead: self.context.config.data.prefetch,
            threads: self.context.config.data.threads,
            window: self.context.config.data.window(),
        };
        if self.state.progress == Progress::default() {
            self.begin(&pipeline)?;
        }
        while self.state.progress.epoch < self.context.config.epochs {
            if self.context.stop.after_steps.is_some_and(|steps| self.state.progress.step >= steps) {
                return Ok(Ending::Stopped);
            }
            let stopped = self.epoch(&pipeline)? == Ending::Stopped;
            let stopped = stopped || self.back_to.is_none() && self.finish_epoch()? == Ending::Stopped;
            self.go_back()?;
            if stopped {
                self.finish_trace()?;
                // A run that has made no step begins anew.
                if self.state.progress.step > 0 {
                    self.save_checkpoint()?;
                }
                return Ok(Ending::Stopped);
            }
        }
        self.finish_trace()?;
        self.finish(&pipeline)
    }

    fn begin(&mut self, pipeline: &Pipeline) -> Result<()> {
        let held_out = self.context.prepared.selection.as_ref().filter(|(_, split)| *split == "held_out");
        let extra = self.context.prepared.extra.as_ref().map(|extra| ExtraImages {
            images: extra.source.len() as u64,
            per_step: Extra::count(extra.fraction, pipeline.global_batch) as u64,
            images_per_class: per_class(extra.source.as_ref()),
        });
        self.record(&Event::Started(RunStarted {
            run: None,
            steps_per_epoch: pipeline.batches_per_epoch() as u64,
            epochs: self.context.config.epochs,
            parameters: self.step.work.networks.student.parameter_count() as u64,
            train_images: self.context.prepared.train.len() as u64,
            held_out_images: held_out.map_or(0, |(source, _)| source.len() as u64),
            test_images: self.context.prepared.test.len() as u64,
            train_images_per_class: per_class(self.context.prepared.train.as_ref()),
            classes: self.context.prepared.form.classes,
            extra,
        }))?;
        for message in self.context.prepared.notes.clone().into_iter().chain(self.context.config.warnings()) {
            self.record(&Event::Warned { message })?;
        }
        if let Some(message) = self.context.config.precision.warning(self.context.place.device) {
            self.record(&Event::Warned { message: message.into() })?;
        }
        Ok(())
    }

    /// The steps of the current epoch that are not done yet. It ends early where a guard leads back.
    fn epoch(&mut self, pipeline: &Pipeline) -> Result<Ending> {
        let Progress { epoch, batch: done, .. } = self.state.progress;
        let terms: [Vec<Term>; 2] = [0, 1].map(|place| self.context.config.terms_of_step(epoch, place));
        let draws = Draws::new(self.context.config.seed, Purpose::AttackStart, epoch);
        let (shape, kind) = (self.context.prepared.form.image, self.context.config.precision.dtype.kind());
        self.step.work.begin_epoch(self.context.config, epoch);
        let classes = self.context.prepared.form.classes;
        self.clock.per_image = self.clock.effort().per_image(self.context.config, epoch);
        let timeline = self.step.work.networks.timeline.clone();
        let steps_per_epoch = pipeline.batches_per_epoch() as u64;
        let rates =
            self.context.config.optimizer.schedule(self.context.config.epochs, steps_per_epoch, pipeline.global_batch);

        // The numbers of a step are read when the next one is under way.
        let mut pending: Option<Pending> = None;
        let mut loader = pipeline.epoch(epoch, done as usize);
        self.averages.teach(&self.step.work.networks);
        loop {
            let asked = Instant::now();
            self.context.place.activity.begin(Stage::Data, self.state.progress.step);
            let Some(host) = timeline.during(Phase::Data, "wait", || loader.next()) else { break };
            let (host, waited) = (host?, asked.elapsed().as_secs_f64());
            self.context.place.activity.begin(Stage::Step, self.state.progress.step + 1);
            let device = self.context.place.device;
            let upload = || Batch::upload(&host, shape, kind, device).mix_labels(&host, classes);
            let batch = timeline.during(Phase::Data, "upload", upload);
            let noise = Noise::new(&draws, &batch.samples, self.context.place.device);
            let factor = self.rate_factor_after(self.state.guarding.rollbacks);
            let rate = rates.rate(epoch, self.state.progress.step) * factor;
            let judgement = self.judge_next(pending.as_ref());
            self.step.work.optimizer.set_momentum(rates.momentum(epoch, self.state.progress.step));
            let (epochs, global_batch) = (self.context.config.epochs, pipeline.global_batch);
            let step = self.state.progress.step;
            let place = Place { epoch, step, epochs, steps_per_epoch, global_batch, rate_factor: factor };
            self.step.work.learners.iter_mut().for_each(|learner| learner.begin_step(place));
            if self.context.place.activity.takes(FaultKind::Nan) {
                let _ = batch.images.shallow_clone().fill_(f64::NAN);
            }
            self.step.work.networks.memory.begin_step(epoch, self.state.progress.step, rates.steps());
            let (context, slow) = (self.context, self.slow);
            let ask = || ask_within_step(context, slow);
            let terms = &terms[(self.state.progress.batch % 2) as usize];
            let observed = match self.step.run_until(&ask, &batch, &noise, terms, rate) {
                Err(error) if error.is::<GivenUp>() => return self.give_up(pending),
                observed => observed?,
            };
            if self.context.place.activity.takes(FaultKind::Desync) {
                let _ = no_grad(|| self.step.work.parameters.values.get(0).fill_(1.5));
            }
            if let Some(message) = self.step.take_warning() {
                self.record(&Event::Warned { message })?;
            }
            let Work { parameters, networks, .. } = &self.step.work;
            self.averages.after_step(self.state.progress, rates.steps(), parameters, &networks.student);
            self.averages.teach(networks);
            let taken = Taken { rate, batch, judgement };
            self.settle(pending.replace(Pending { observed, lap: timeline.lap(), taken }))?;
            if self.back_to.is_some() {
                return Ok(Ending::Finished);
            }
            self.state.progress.batch += 1;
            self.state.progress.step += 1;
            self.compare_ranks()?;
            let requests = timeline.during(Phase::Communication, "requests", || self.requests(waited))?;
            self.trace_step()?;
            let ending = self.answer(&requests, &mut pending)?;
            if ending == Ending::Stopped || self.back_to.is_some() {
                return Ok(ending);
            }
        }
        let requests = self.last_requests()?;
        let ending = self.answer(&requests, &mut pending)?;
        self.settle(pending)?;
        Ok(ending)
    }

    /// Ends the epoch after the steps before the one that was given up.
    fn give_up(&mut self, pending: Option<Pending>) -> Result<Ending> {
        self.last_requests()?;
        self.settle(pending)?;
        let step = self.state.progress.step + 1;
        self.console
            .note(&format!("step {step} was given up within its attack; the run goes on with it when it resumes"));
        Ok(Ending::Stopped)
    }

    /// Does what was asked for, with the numbers of all steps read before.
    fn answer(&mut self, requests: &Requests, pending: &mut Option<Pending>) -> Result<Ending> {
        self.hear_of_save()?;
        self.clock.waited(requests.waited);
        if requests.stop || requests.checkpoint {
            self.settle(pending.take())?;
        }
        if requests.stop {
            return Ok(Ending::Stopped);
        }
        // A run that goes back saves its state there.
        if requests.checkpoint && self.back_to.is_none() {
            self.save_checkpoint()?;
        }
        Ok(Ending::Finished)
    }
}
