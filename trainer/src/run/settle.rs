//! What a step leaves to be read: its numbers, its time, its part of a trace.

use anyhow::Result;

use super::active::Run;
use super::pending::Pending;
use crate::config::AttackKind;
use crate::run::events::{Event, StepDone};
use crate::run::trace::Tracer;
use crate::step::guard;
use crate::system::agreement::Agreed;
use crate::weights::guarding::Offence;

impl Run<'_> {
    /// Reads the numbers of a step that was started earlier, adds them up, and records them now and then.
    pub(super) fn settle(&mut self, pending: Option<Pending>) -> Result<()> {
        let Some(Pending { observed, lap, taken }) = pending else { return Ok(()) };
        let (seen, rate) = (observed.read()?, taken.rate);
        self.clock.passed(lap.seconds());
        let terms = seen.sums.mean_losses();
        let step = self.state.progress.step - self.state.progress.batch + self.state.totals.steps + 1;
        if let Some(place) = seen.not_finite {
            let bad: Vec<&str> =
                terms.iter().filter(|(_, value)| !value.is_finite()).map(|(name, _)| name.as_str()).collect();
            let bad =
                if bad.is_empty() { String::new() } else { format!("; not finite: loss term {}", bad.join(", ")) };
            let found = format!("{}{bad}", guard::name_among(place, self.step.work.trained()));
            // The steps after it have moved nothing either: the state is that before it, with `free` that before one of its updates.
            let offence = Offence { not_finite: true, ..self.offence(step, found.clone(), &taken) };
            let kept = self.keep_offending(&taken.batch, offence)?.unwrap_or_default();
            // A learner may have an optimizer of its own.
            let learners = &self.context.config.learners;
            let learner = guard::network_at(place, self.step.work.trained()).and_then(|(one, _)| one.learner);
            let own = learner.and_then(|name| Some((name, learners.get(name)?.optimizer.as_ref()?)));
            let lower = match own {
                Some((name, optimizer)) => format!("learners.{name}.optimizer.lr ({})", optimizer.lr),
                None => format!("optimizer.lr (now {rate})"),
            };
            let state = match self.context.config.attack.kind {
                AttackKind::Free => {
                    "Earlier updates of its batch, if any, moved the weights; the last checkpoint is as it was"
                }
                _ => "The step moved nothing and the last checkpoint is as it was",
            };
            let message = format!("step {step}: {found}. {state}. Lower {lower}, or look for damaged images. {kept}");
            // Every rank sees the same sums.
            return Err(Agreed { message, user: false }.into());
        }
        self.state.totals.add(&seen.sums, rate);
        self.clock.trained(seen.sums.samples);
        if step == 1 || step.is_multiple_of(self.context.config.metrics.every) {
            let (epoch, timing, loss) = (self.state.progress.epoch, self.clock.lap(), terms.values().sum());
            self.record(&Event::Step(StepDone { epoch, step, learning_rate: rate, loss, terms, timing }))?;
        }
        self.watch_gradient(step, seen.norm, &taken)
    }

    /// Counts a step of the trace, and writes it after the last one.
    pub(super) fn trace_step(&mut self) -> Result<()> {
        if self.tracer.as_mut().is_some_and(Tracer::step) { self.finish_trace() } else { Ok(()) }
    }

    pub(super) fn finish_trace(&mut self) -> Result<()> {
        let Some(tracer) = self.tracer.take() else { return Ok(()) };
        let said =
            tracer.finish(&format!("{}, {:?}", comm::host_name(), self.context.place.device), self.context.ranks())?;
        self.console.note(&said);
        Ok(())
    }
}
