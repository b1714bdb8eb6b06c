//! Progress that the next one replaces on a terminal; elsewhere it is printed at intervals.

use std::time::{Duration, Instant};

use super::block;
use super::say::{is_quiet, say, tell};

/// Lines that stay, and lines that the next ones replace.
pub(crate) struct ProgressLine {
    live: bool,
    shown: Option<Instant>,
}

impl ProgressLine {
    /// Shows a first transient line at once.
    pub(crate) fn new() -> Self {
        Self { live: block::is_live(), shown: None }
    }

    /// Shows a first transient line only after a pause.
    pub(crate) fn after_pause() -> Self {
        Self { shown: Some(Instant::now()), ..Self::new() }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        tell(text);
    }

    /// A line that stays, and is shown whether progress is or not.
    pub(crate) fn warning(&self, text: &str) {
        say(text);
    }

    /// Whether lines can be replaced.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// Lines that the next ones replace. Only where that is possible.
    pub(super) fn block(&mut self, lines: impl FnOnce() -> Vec<String>) {
        if self.live && self.is_due() && !is_quiet() {
            block::show(&lines());
        }
    }

    /// A line that the next one replaces. Returns the line if it stays, because stderr is no terminal.
    pub(crate) fn transient<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if self.live {
            self.block(|| vec![text.to_string()]);
            return None;
        }
        if !self.is_due() {
            return None;
        }
        // The log of a run has it all the same.
        tell(text);
        Some(text)
    }

    fn is_due(&mut self) -> bool {
        let pause = if self.live { Duration::from_millis(200) } else { Duration::from_secs(10) };
        let due = self.shown.is_none_or(|shown| shown.elapsed() >= pause);
        if due {
            self.shown = Some(Instant::now());
        }
        due
    }
}
