//! A whole run: epochs, evaluation, checkpoints. World size 1 is just N = 1.

mod finish;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use comm::Communicator;
use datasets::{Draws, Pipeline, Purpose, Shard, per_class};
use tch::Device;

use crate::agreement::Agreed;
use crate::attack::Noise;
use crate::averages::Averages;
use crate::batch::Batch;
use crate::checkpoint::{Header, Progress};
use crate::clock::Clock;
use crate::config::{AttackKind, RunConfig, Selection};
use crate::evaluate::{Accuracy, Protocol, Suite, evaluate};
use crate::folder::RunFolder;
use crate::loss::Term;
use crate::metrics::{Event, JsonLines, Sink, Timing, counts, losses, probability, trust};
use crate::model::Model;
use crate::observe::{Observed, Sums};
use crate::prepare::Prepared;
use crate::state;
use crate::step::Step;
use crate::views::Networks;

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
/// [`Agreed`] errors, which all ranks know of; any other error is this rank's alone, and the
/// caller must abort the others.
pub fn train(
    config: &RunConfig,
    prepared: &Prepared,
    folder: &RunFolder,
    place: &Place,
    stop: &Stop,
    console: &mut dyn Sink,
) -> Result<Ending> {
    let networks = Networks::build(config, prepared, place)?;
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
    let clock = Clock::new(header.seconds);
    let saved = Instant::now();
    let mut run =
        Run { config, prepared, folder, place, stop, console, journal, step, averages, header, totals, clock, saved };
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
    /// When this session last saved a checkpoint.
    saved: Instant,
}

/// What a run is asked for between two steps.
struct Requests {
    stop: bool,
    /// Of `stop`, whether someone asked, and not the number of steps alone.
    stop_asked: bool,
    checkpoint: bool,
    /// Seconds that the step waited for its images, of the rank that waited longest.
    waited: f64,
}

/// What came of measuring an epoch's student.
enum Measured {
    Nothing,
    Stopped,
    Accuracies(Vec<Accuracy>, f64),
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
                self.save_checkpoint()?;
                return Ok(Ending::Stopped);
            }
        }
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
        let all_steps = self.config.epochs * pipeline.batches_per_epoch() as u64;

        // The numbers of a step are read when the next one is under way.
        let mut pending: Option<(Observed, f64)> = None;
        let mut loader = pipeline.epoch(epoch, done as usize);
        loop {
            let asked = Instant::now();
            let Some(host) = loader.next() else { break };
            let waited = asked.elapsed().as_secs_f64();
            let batch = Batch::upload(&host?, shape, kind, self.place.device);
            let noise = Noise::new(&draws, &batch.samples, self.place.device);
            let fraction = self.header.progress.step as f64 / all_steps as f64;
            let rate = self.config.optimizer.lr * self.config.optimizer.lr_policy.factor(epoch, fraction);
            let observed = self.step.run(&batch, &noise, &terms, rate)?;
            let Step { parameters, networks, .. } = &self.step;
            self.averages.after_step(epoch, self.header.progress.batch, parameters, &networks.student);
            self.settle(pending.replace((observed, rate)))?;
            self.header.progress.batch += 1;
            self.header.progress.step += 1;
            let requests = self.requests(waited)?;
            self.clock.waited(requests.waited);
            if requests.stop {
                self.settle(pending)?;
                return Ok(Ending::Stopped);
            }
            if requests.checkpoint {
                self.settle(pending.take())?;
                self.save_checkpoint()?;
            }
        }
        self.settle(pending)?;
        Ok(Ending::Finished)
    }

    /// What any rank was asked for since the last step: to stop (or the step to stop after is done), or by its clock to save a
    /// checkpoint.
    /// `waited` are the seconds that this rank waited for the step's images.
    fn requests(&self, waited: f64) -> Result<Requests> {
        let minutes = self.config.checkpoint.minutes;
        let due = minutes > 0.0 && self.saved.elapsed().as_secs_f64() >= 60.0 * minutes;
        let mut requests =
            [self.stop.requested.load(Ordering::Relaxed), due].map(|asked| f64::from(u8::from(asked))).to_vec();
        // A place for each rank: the longest wait is the one that all waited for.
        requests.resize(2 + self.place.ranks.world_size(), 0.0);
        requests[2 + self.place.ranks.rank()] = waited;
        self.place.ranks.sum(&mut requests)?;
        let waited = requests[2..].iter().copied().fold(0.0, f64::max);
        let reached = self.stop.after_steps.is_some_and(|steps| self.header.progress.step >= steps);
        let stop_asked = requests[0] > 0.0;
        Ok(Requests { stop: stop_asked || reached, stop_asked, checkpoint: requests[1] > 0.0, waited })
    }

    /// Reads the numbers of a step that was started earlier, adds them up, and records them now and then.
    fn settle(&mut self, pending: Option<(Observed, f64)>) -> Result<()> {
        let Some((observed, rate)) = pending else { return Ok(()) };
        let seen = observed.read()?;
        let (loss, terms) = losses(&seen.sums);
        let done = self.totals.get("steps").copied().unwrap_or(0.0) + 1.0;
        let step = self.header.progress.step - self.header.progress.batch + done as u64;
        if let Some(place) = seen.not_finite {
            let bad: Vec<&str> =
                terms.iter().filter(|(_, value)| !value.is_finite()).map(|(name, _)| name.as_str()).collect();
            let bad =
                if bad.is_empty() { String::new() } else { format!("; not finite: loss term {}", bad.join(", ")) };
            let message = format!(
                "step {step}: the gradient is not finite, as in {}{bad}. The step moved nothing and the last \
                 checkpoint is as it was. Lower optimizer.lr (now {rate}), or look for damaged images",
                self.step.parameters.name_at(place),
            );
            // Every rank sees the same sums.
            return Err(Agreed { message, user: false }.into());
        }
        state::add(&mut self.totals, &seen.sums);
        self.totals.insert("steps".into(), done);
        self.totals.insert("rate".into(), rate);
        self.clock.images += seen.sums["samples"];
        if step == 1 || step.is_multiple_of(self.config.metrics.every) {
            let (epoch, timing) = (self.header.progress.epoch, self.clock.lap());
            self.record(&Event::Step { epoch, step, learning_rate: rate, loss, terms, timing })?;
        }
        Ok(())
    }

    /// Measures the student, records the epoch, keeps the best weights and now and then a checkpoint. If it is interrupted, the
    /// state is that before it, and resuming begins here again.
    fn finish_epoch(&mut self) -> Result<Ending> {
        let Progress { epoch, step, .. } = self.header.progress;
        let seconds = self.clock.seconds() - self.header.epoch_began;
        let rate = self.totals["samples"] / seconds.max(1e-9);
        let waited = self.clock.end_of_epoch();
        let timing = Timing { seconds, images_per_second: Some(rate), waited_for_data: Some(waited) };
        let evaluated = match self.measure(epoch)? {
            Measured::Stopped => return Ok(Ending::Stopped),
            Measured::Nothing => None,
            Measured::Accuracies(attacks, seconds) => Some((attacks, seconds)),
        };
        let (loss, terms) = losses(&self.totals);
        let (counts, trust, probability) = (counts(&self.totals), trust(&self.totals), probability(&self.totals));
        let learning_rate = self.totals["rate"];
        self.record(&Event::Epoch { epoch, step, learning_rate, loss, terms, counts, trust, probability, timing })?;
        self.averages.after_epoch(epoch, &self.step.parameters, &self.step.networks.student);

        self.totals.clear();
        self.header.progress = Progress { epoch: epoch + 1, batch: 0, step };
        if let Some((attacks, seconds)) = evaluated {
            // Strictly better under the last attack: the earliest of equals wins.
            let correct = attacks.last().map_or(0, |accuracy| accuracy.correct);
            let best = self.header.best.is_none_or(|best| correct > best);
            if best {
                self.header.best = Some(correct);
                self.save_weights("best", &self.step.networks.student)?;
            }
            let split = self.prepared.selection.as_ref().map_or("", |(_, split)| split).to_string();
            let timing = Timing { seconds, ..Timing::default() };
            self.record(&Event::Evaluated { epoch, step, split, best, attacks, timing })?;
        }
        self.header.epoch_began = self.clock.seconds();
        if (epoch + 1).is_multiple_of(self.config.checkpoint.every) || epoch + 1 == self.config.epochs {
            self.save_checkpoint()?;
        }
        Ok(Ending::Finished)
    }

    /// Natural and PGD-10 accuracy on the images that choose the best weights, where the epoch is due.
    fn measure(&mut self, epoch: u64) -> Result<Measured> {
        let every = self.config.evaluation.every;
        let Some((source, _)) = self.prepared.selection.as_ref().filter(|_| (epoch + 1).is_multiple_of(every.max(1)))
        else {
            return Ok(Measured::Nothing);
        };
        let suite: &[&str] =
            if self.config.attack.kind == AttackKind::None { &["natural"] } else { &["natural", "pgd10"] };
        let suite = Suite::named(suite.iter().copied()).map_err(|name| anyhow::anyhow!("no attack {name}"))?;
        let (began, console) = (Instant::now(), &mut *self.console);
        let student = &self.step.networks.student;
        let (ranks, requested) = (self.place.ranks.as_ref(), self.stop.requested);
        let progress = &mut |standing: &_| console.evaluating("measuring", standing);
        let accuracies =
            evaluate(student, source.as_ref(), &suite, &Protocol::of(self.config), ranks, requested, progress)?;
        self.clock.since = Instant::now();
        Ok(accuracies.map_or(Measured::Stopped, |found| Measured::Accuracies(found, began.elapsed().as_secs_f64())))
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
