//! A progress line that the next one replaces on a terminal; elsewhere it is printed at intervals.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::say::{is_quiet, say, tell};

/// Lines that stay, and lines that the next one replaces.
pub(crate) struct ProgressLine {
    terminal: bool,
    shown: Option<Instant>,
}

impl ProgressLine {
    /// Shows a first transient line at once.
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), shown: None }
    }

    /// Shows a first transient line only after a pause.
    pub(crate) fn after_pause() -> Self {
        Self { shown: Some(Instant::now()), ..Self::new() }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        tell(&self.over(text));
    }

    /// A line that stays, and is shown whether progress is or not.
    pub(crate) fn warning(&self, text: &str) {
        say(&self.over(text));
    }

    /// `text` in the place of a line that may be there.
    fn over(&self, text: &str) -> String {
        format!("{}{text}", if self.terminal { "\r\x1b[K" } else { "" })
    }

    /// A line that the next one replaces. Returns the line if it stays, because stderr is no terminal.
    pub(crate) fn transient<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        let pause = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return None;
        }
        self.shown = Some(Instant::now());
        if is_quiet() {
            // The log of a run has it all the same.
            return Some(text).filter(|_| !self.terminal);
        }
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
            let _ = std::io::stderr().flush();
            return None;
        }
        say(text);
        Some(text)
    }
}
