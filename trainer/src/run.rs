//! A whole run: epochs, evaluation, checkpoints. World size 1 is just N = 1.

mod epoch_end;
mod finish;
mod requests;
mod settle;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::Result;
use comm::{Communicator, HostSum};
use datasets::{Draws, Pipeline, Purpose, Shard, per_class};
use tch::Device;

use crate::attack::Noise;
use crate::averages::Averages;
use crate::batch::Batch;
use crate::checkpoint::{Header, Progress};
use crate::clock::Clock;
use crate::config::{RunConfig, Selection};
use crate::effort::Effort;
use crate::folder::RunFolder;
use crate::loss::Term;
use crate::metrics::{Event, JsonLines, Sink};
use crate::model::Model;
use crate::observe::Sums;
use crate::prepare::Prepared;
use crate::state;
use crate::step::Step;
use crate::timeline::Phase;
use crate::trace::Tracer;
use crate::views::Networks;

use self::requests::Requests;
use self::settle::Pending;

/// How a run left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All epochs and the final evaluation are done.
    Finished,
    /// It was asked to stop; the same command goes on.
    Stopped,
}

/// Where a run computes, and with whom.
#[derive(Clone)]
pub struct Place {
    /// The ranks of the run.
    pub ranks: Arc<dyn Communicator>,
    /// This rank's device.
    pub device: Device,
}

/// Requests to stop, at the next step or after a given one.
pub struct Stop<'a> {
    /// Raised by a signal, on any rank.
    pub requested: &'a AtomicBool,
    /// The number of steps after which to stop, counted from the beginning of the run.
    pub after_steps: Option<u64>,
}

/// Trains the student of `config` from where `folder` left off to the end, or until it is told to stop. The leader writes
/// the folder and tells `console`; the caller has checked and claimed the folder.
///
/// # Errors
/// [`Agreed`](crate::agreement::Agreed) errors, which all ranks know of; any other error is this rank's alone, and the
/// caller must abort the others.
pub fn train(
    config: &RunConfig,
    prepared: &Prepared,
    folder: &RunFolder,
    place: &Place,
    stop: &Stop,
    trace: Option<u64>,
    console: &mut dyn Sink,
) -> Result<Ending> {
    let networks = Networks::build(config, prepared, place)?;
    let effort = Effort::new(config, &networks, place.ranks.as_ref())?;
    let mut step = Step::new(config, networks, Arc::clone(&place.ranks))?;
    let fresh = Header::new(prepared.form, config.hash(), config.batch.global(place.ranks.world_size()));
    let averages = Averages::new(config, &step.parameters, &step.networks.student);
    let (header, problems) = state::restore(folder, fresh, &mut step, &averages, place.ranks.as_ref())?;
    let journal = if place.ranks.is_leader() {
        Some(JsonLines::open(&folder.file("metrics.jsonl"), header.metrics_bytes)?)
    } else {
        None
    };
    let totals = state::sums_from_bits(&header);
    let clock = Clock::new(header.seconds, effort);
    let timeline = &step.networks.timeline;
    let file = folder.file(&format!("trace-{}.json", header.progress.step));
    let tracer = trace.map(|steps| Tracer::begin(file, steps, timeline, place.ranks.as_ref())).transpose()?;
    timeline.pause();
    let saved = Instant::now();
    let mut run = Run {
        config,
        prepared,
        folder,
        place,
        stop,
        console,
        journal,
        step,
        averages,
        header,
        totals,
        clock,
        tracer,
        saved,
        asked: None,
    };
    for problem in problems {
        run.console.record(&Event::Warned { message: problem })?;
    }
    run.epochs()
}

struct Run<'a> {
    config: &'a RunConfig,
    prepared: &'a Prepared,
    folder: &'a RunFolder,
    place: &'a Place,
    stop: &'a Stop<'a>,
    console: &'a mut dyn Sink,
    journal: Option<JsonLines>,
    step: Step,
    averages: Averages,
    header: Header,
    totals: Sums,
    clock: Clock,
    tracer: Option<Tracer>,
    /// When this session last saved a checkpoint.
    saved: Instant,
    /// What the ranks were asked for at the last step, on its way.
    asked: Option<HostSum>,
}

impl Run<'_> {
    fn epochs(&mut self) -> Result<Ending> {
        let ranks = self.place.ranks.as_ref();
        let pipeline = Pipeline {
            source: Arc::clone(&self.prepared.train),
            augment: self.config.data.augment.clone(),
            shard: Shard { rank: ranks.rank(), world_size: ranks.world_size() },
            global_batch: self.header.global_batch,
            seed: self.config.seed,
            ahead: self.config.data.prefetch,
            threads: self.config.data.threads,
            window: self.config.data.window(),
        };
        if self.header.progress == Progress::default() {
            self.begin(&pipeline)?;
        }
        while self.header.progress.epoch < self.config.epochs {
            if self.stop.after_steps.is_some_and(|steps| self.header.progress.step >= steps) {
                return Ok(Ending::Stopped);
            }
            if self.epoch(&pipeline)? == Ending::Stopped || self.finish_epoch()? == Ending::Stopped {
                self.finish_trace()?;
                self.save_checkpoint()?;
                return Ok(Ending::Stopped);
            }
        }
        self.finish_trace()?;
        self.finish(&pipeline)
    }

    fn begin(&mut self, pipeline: &Pipeline) -> Result<()> {
        let held_out = self.prepared.selection.as_ref().filter(|(_, split)| *split == "held_out");
        self.record(&Event::Started {
            steps_per_epoch: pipeline.batches_per_epoch(),
            epochs: self.config.epochs,
            parameters: self.step.networks.student.parameter_count(),
            train_images: self.prepared.train.len(),
            held_out_images: held_out.map_or(0, |(source, _)| source.len()),
            test_images: self.prepared.test.len(),
            train_images_per_class: per_class(self.prepared.train.as_ref()),
            classes: self.prepared.form.classes,
        })?;
        if self.config.evaluation.selection == Selection::Test {
            let message = "the best checkpoint is chosen on the test set (evaluation.selection = \"test\"), as in the \
                           paper: its test accuracy is an optimistic estimate";
            self.record(&Event::Warned { message: message.into() })?;
        }
        if let Some(message) = self.config.precision.warning(self.place.device) {
            self.record(&Event::Warned { message: message.into() })?;
        }
        Ok(())
    }

    /// The steps of the current epoch that are not done yet.
    fn epoch(&mut self, pipeline: &Pipeline) -> Result<Ending> {
        let Progress { epoch, batch: done, .. } = self.header.progress;
        let terms: Vec<Term> = self.config.active_terms(epoch).collect();
        let draws = Draws::new(self.config.seed, Purpose::AttackStart, epoch);
        let (shape, kind) = (self.prepared.form.image, self.config.precision.dtype.kind());
        self.clock.per_image = self.clock.effort().per_image(self.config, epoch);
        let timeline = self.step.networks.timeline.clone();
        let steps_per_epoch = pipeline.batches_per_epoch() as u64;
        let rates = self.config.optimizer.schedule(self.config.epochs, steps_per_epoch, pipeline.global_batch);

        // The numbers of a step are read when the next one is under way.
        let mut pending: Option<Pending> = None;
        let mut loader = pipeline.epoch(epoch, done as usize);
        loop {
            let asked = Instant::now();
            let Some(host) = timeline.during(Phase::Data, "wait", || loader.next()) else { break };
            let (host, waited) = (host?, asked.elapsed().as_secs_f64());
            let upload = || Batch::upload(&host, shape, kind, self.place.device);
            let batch = timeline.during(Phase::Data, "upload", upload);
            let noise = Noise::new(&draws, &batch.samples, self.place.device);
            let rate = rates.rate(epoch, self.header.progress.step);
            let observed = self.step.run(&batch, &noise, &terms, rate)?;
            if let Some(message) = self.step.take_warning() {
                self.record(&Event::Warned { message })?;
            }
            let Step { parameters, networks, .. } = &self.step;
            self.averages.after_step(epoch, self.header.progress.batch, parameters, &networks.student);
            self.settle(pending.replace(Pending { observed, rate, lap: timeline.lap() }))?;
            self.header.progress.batch += 1;
            self.header.progress.step += 1;
            let requests = timeline.during(Phase::Communication, "requests", || self.requests(waited))?;
            self.trace_step()?;
            if self.answer(&requests, &mut pending)? == Ending::Stopped {
                return Ok(Ending::Stopped);
            }
        }
        let requests = self.last_requests()?;
        let ending = self.answer(&requests, &mut pending)?;
        self.settle(pending)?;
        Ok(ending)
    }

    /// Does what was asked for, with the numbers of all steps read before.
    fn answer(&mut self, requests: &Requests, pending: &mut Option<Pending>) -> Result<Ending> {
        self.clock.waited(requests.waited);
        if requests.stop || requests.checkpoint {
            self.settle(pending.take())?;
        }
        if requests.stop {
            return Ok(Ending::Stopped);
        }
        if requests.checkpoint {
            self.save_checkpoint()?;
        }
        Ok(Ending::Finished)
    }

    /// Writes the whole state, after making sure that all ranks agree on it.
    fn save_checkpoint(&mut self) -> Result<()> {
        let ranks = self.place.ranks.as_ref();
        state::ensure_equal_on_all_ranks(&self.step, &self.averages, ranks)?;
        if let Some(journal) = &mut self.journal {
            self.header.metrics_bytes = journal.sync()?;
        }
        self.header.totals = state::bits_of_sums(&self.totals);
        if ranks.is_leader() {
            let header = Header { seconds: self.clock.seconds(), ..self.header.clone() };
            state::save(self.folder, &header, &self.step, &self.averages, self.config.checkpoint.keep_last)?;
        }
        self.saved = Instant::now();
        // No rank runs ahead of a checkpoint that is not on the disk yet.
        ranks.barrier()
    }

    fn save_weights(&self, name: &str, model: &Model) -> Result<()> {
        if !self.place.ranks.is_leader() {
            return Ok(());
        }
        state::save_weights(self.folder, name, &self.header, model)
    }

    fn record(&mut self, event: &Event) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.record(event)?;
        }
        self.console.record(event)
    }
}
