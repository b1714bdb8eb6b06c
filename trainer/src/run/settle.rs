//! What a step leaves to be read: its numbers, its time, its part of a trace.

use anyhow::Result;

use super::Run;
use crate::agreement::Agreed;
use crate::metrics::{Event, losses};
use crate::observe::Observed;
use crate::state;
use crate::timeline::Lap;
use crate::trace::Tracer;

/// A step whose numbers are not read yet.
pub(super) struct Pending {
    pub(super) observed: Observed,
    pub(super) rate: f64,
    pub(super) lap: Lap,
}

impl Run<'_> {
    /// Reads the numbers of a step that was started earlier, adds them up, and records them now and then.
    pub(super) fn settle(&mut self, pending: Option<Pending>) -> Result<()> {
        let Some(Pending { observed, rate, lap }) = pending else { return Ok(()) };
        let seen = observed.read()?;
        self.clock.passed(lap.seconds());
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

    /// Counts a step of the trace, and writes it after the last one.
    pub(super) fn trace_step(&mut self) -> Result<()> {
        if self.tracer.as_mut().is_some_and(Tracer::step) { self.finish_trace() } else { Ok(()) }
    }

    pub(super) fn finish_trace(&mut self) -> Result<()> {
        let Some(tracer) = self.tracer.take() else { return Ok(()) };
        let said =
            tracer.finish(&format!("{}, {:?}", comm::host_name(), self.place.device), self.place.ranks.as_ref())?;
        self.console.note(&said);
        Ok(())
    }
}
