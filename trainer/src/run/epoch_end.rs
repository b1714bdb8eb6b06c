//! The end of an epoch: its record, the best weights, a checkpoint.

use std::time::Instant;

use anyhow::Result;

use super::{Ending, Run};
use crate::checkpoint::Progress;
use crate::config::AttackKind;
use crate::evaluate::{Accuracy, Protocol, Suite, evaluate};
use crate::metrics::{Event, Timing, counts, losses, probability, trust};

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
        let Progress { epoch, step, .. } = self.header.progress;
        let seconds = self.clock.seconds() - self.header.epoch_began;
        self.clock.passed(self.step.networks.timeline.pause().seconds());
        let place = self.place;
        let timing = self.clock.epoch(self.totals["samples"], seconds, place.ranks.as_ref(), place.device)?;
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
        self.step.networks.timeline.pause();
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
}
