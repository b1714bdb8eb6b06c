//! A run under way on this rank: everything that its loop holds.

use std::time::Instant;

use anyhow::Result;
use comm::HostSum;

use super::averages::Averages;
use super::clock::Clock;
use super::context::RunContext;
use super::events::Event;
use super::metrics::{JsonLines, Sink};
use super::state::RunState;
use super::trace::Tracer;
use super::writer::Writer;
use crate::step::Step;

/// How a run ends for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All epochs and the final evaluation are done.
    Finished,
    /// It was asked to stop; the same command resumes it.
    Stopped,
}

/// A run under way on this rank.
pub struct Run<'a> {
    pub context: &'a RunContext<'a>,
    pub console: &'a mut dyn Sink,
    /// The leader's metrics.jsonl.
    pub journal: Option<JsonLines>,
    pub step: Step,
    pub averages: Averages,
    pub state: RunState,
    pub clock: Clock,
    pub tracer: Option<Tracer>,
    /// When this session last saved a checkpoint.
    pub saved: Instant,
    /// What the leader writes its files with.
    pub writer: Option<Writer>,
    /// What the ranks were asked for at the last step, on its way.
    pub asked: Option<HostSum>,
    /// Whether a step takes so long that requests are read within it and at its end. All ranks know the same.
    pub slow: bool,
    /// The step of the checkpoint that a guard leads back to.
    pub back_to: Option<u64>,
}

impl Run<'_> {
    /// Tells the console, and on the leader metrics.jsonl, of an event.
    pub fn record(&mut self, event: &Event) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.record(event)?;
            if let Some(problem) = journal.take_problem() {
                let message =
                    format!("{problem:#}. The run goes on, and its events wait in memory until they can be written");
                self.console.record(&Event::Warned { message })?;
            }
        }
        self.console.record(event)
    }
}
