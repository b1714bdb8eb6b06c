//! The end of an epoch: its record, the best weights, a checkpoint.

use std::time::Instant;

use anyhow::Result;

use super::active::{Ending, Run};
use crate::config::Protocol;
use crate::evaluate::{Accuracy, Engine, Records};
use crate::run::events::{EpochDone, Evaluated, Event, Timing};
use crate::run::totals::{EpochTotals, counts, histograms, trust};
use crate::system::Stage;
use crate::weights::checkpoint::Progress;

/// What came of measuring an epoch's student.
enum Measured {
    Nothing,
    Stopped,
    Accuracies(Vec<Accuracy>, f64),
}

impl Run<'_> {
    /// Measures the student, records the epoch, keeps the best weights and now and then a checkpoint. If it is interrupted, the
    /// state is that before it, and resuming begins here again.
    pub(super) fn finish_epoch(&mut self) -> Result<Ending> {
        let Progress { epoch, step, .. } = self.state.progress;
        let seconds = self.clock.seconds() - self.state.epoch_began;
        self.clock.passed(self.step.work.networks.timeline.pause().seconds());
        let context = self.context;
        let images = self.state.totals.sums.samples;
        let timing = self.clock.epoch(images, seconds, context.ranks(), context.place.device)?;
        let evaluated = match self.measure(epoch)? {
            Measured::Stopped => return Ok(Ending::Stopped),
            Measured::Nothing => None,
            Measured::Accuracies(attacks, seconds) => Some((attacks, seconds)),
        };
        let EpochTotals { sums, learning_rate, .. } = std::mem::take(&mut self.state.totals);
        let terms = sums.mean_losses();
        let trained = sums.student_adversarial.map(|counted| counted.sum / counted.of.max(1.0));
        self.record(&Event::Epoch(EpochDone {
            epoch,
            step,
            learning_rate,
            loss: terms.values().sum(),
            terms,
            counts: counts(&sums),
            trust: trust(&sums),
            probability: histograms(&sums.probability_bins),
            timing,
        }))?;
        self.averages.after_epoch(epoch, &self.step.work.parameters, &self.step.work.networks.student);
        self.step.work.networks.memory.after_epoch();

        self.state.progress = Progress { epoch: epoch + 1, batch: 0, step };
        if let Some((attacks, seconds)) = evaluated {
            // Strictly better under the last attack: the earliest of equals wins.
            let correct = attacks.last().map_or(0, |accuracy| accuracy.correct);
            let best = self.state.best.is_none_or(|best| correct > best);
            self.state.measured = Some((step, correct));
            if best {
                self.state.best = Some(correct);
                self.keep_student("best")?;
            }
            let robust = attacks.last().cloned();
            let split = context.prepared.selection.as_ref().map_or("", |(_, split)| split).to_string();
            let timing = Timing::of(seconds);
            self.record(&Event::Evaluated(Evaluated { epoch, step, split, best, attacks, timing }))?;
            self.watch_accuracy(epoch, robust.as_ref(), trained)?;
        }
        self.state.epoch_began = self.clock.seconds();
        self.step.work.networks.timeline.pause();
        let due = (epoch + 1).is_multiple_of(context.config.checkpoint.every) || epoch + 1 == context.config.epochs;
        if due && self.back_to.is_none() {
            self.save_checkpoint()?;
        } else {
            self.save_kept_weights()?;
        }
        Ok(Ending::Finished)
    }

    /// Natural and PGD-10 accuracy on the images that choose the best weights, where the epoch is due.
    fn measure(&mut self, epoch: u64) -> Result<Measured> {
        let context = self.context;
        let every = context.config.evaluation.every;
        let Some((source, _)) =
            context.prepared.selection.as_ref().filter(|_| (epoch + 1).is_multiple_of(every.max(1)))
        else {
            return Ok(Measured::Nothing);
        };
        context.place.activity.begin_next(Stage::Evaluation);
        let (began, console) = (Instant::now(), &mut *self.console);
        let engine = Engine {
            network: &self.step.work.networks.student,
            source: source.as_ref(),
            suite: &context.config.selection_suite(),
            protocol: &Protocol::of(context.config),
            ranks: context.ranks(),
            stop: context.stop.requested,
            checks_sanity: false,
            saves_images: false,
        };
        let outcomes =
            engine.run(&mut Records::default(), &mut |standing| console.evaluating("measuring", standing))?;
        let Some(outcomes) = outcomes else { return Ok(Measured::Stopped) };
        Ok(Measured::Accuracies(outcomes.accuracies()?, began.elapsed().as_secs_f64()))
    }
}
