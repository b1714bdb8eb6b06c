//! The log of each rank, `logs/rank-NNNN.log` in the run folder: its device and host, its events, its last error.

use std::fs::{File, create_dir_all};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use trainer::run::events::{EpochDone, Event, RunFinished};
use trainer::run::metrics::Sink;
use trainer::system::{Activity, Stage};

use super::say::append_log;

/// The log of one rank. Lines are held in memory until the run has a folder. A write error is ignored, because a log
/// must not end a run.
pub(crate) struct RankLog {
    rank: usize,
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    folder: Option<PathBuf>,
    file: Option<File>,
    /// Lines from before the folder is known.
    waiting: Vec<String>,
}

impl RankLog {
    /// The log of this rank, in memory so far.
    pub(crate) fn new(rank: usize) -> Self {
        Self { rank, state: Mutex::default() }
    }

    /// Adds a line with the current time in UTC.
    pub(crate) fn line(&self, text: &str) {
        let line = format!("{} {text}\n", humantime::format_rfc3339_millis(SystemTime::now()));
        let mut state = self.state();
        match &mut state.file {
            // One call per line: a killed process leaves whole lines.
            Some(file) => drop(file.write_all(line.as_bytes())),
            None => state.waiting.push(line),
        }
    }

    /// Continues in the existing run folder `folder`, with `start` as the first line of this session there.
    pub(crate) fn open(&self, folder: &Path, start: &str) {
        let logs = folder.join("logs");
        let file = create_dir_all(&logs).and_then(|()| {
            File::options().create(true).append(true).open(logs.join(format!("rank-{:04}.log", self.rank)))
        });
        let waiting = {
            let mut state = self.state();
            state.folder = Some(folder.to_path_buf());
            state.file = file.ok();
            std::mem::take(&mut state.waiting)
        };
        self.line(start);
        if let Some(file) = &mut self.state().file {
            let _ = file.write_all(waiting.concat().as_bytes());
        }
    }

    /// Adds the error that ends the run, here and in the run's console.log.
    pub(crate) fn last_words(&self, error: &str) {
        let text = format!("error: {error}");
        let folder = self.state().folder.clone();
        if let Some(folder) = folder {
            append_log(&folder, &text);
        }
        self.line(&text);
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes events to the console, if this rank has one, and logs the rare ones.
pub(crate) struct Logged<'a> {
    /// The log.
    pub(crate) log: &'a RankLog,
    /// Hears of each batch of an evaluation.
    pub(crate) activity: Activity,
    /// The console or another sink.
    pub(crate) rest: &'a mut dyn Sink,
}

impl Sink for Logged<'_> {
    fn record(&mut self, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::Epoch(EpochDone { epoch, step, .. }) => {
                self.log.line(&format!("epoch {} done, step {step}", epoch + 1))
            }
            Event::Warned { message } => self.log.line(&format!("warning: {message}")),
            Event::Finished(RunFinished { step, .. }) => self.log.line(&format!("trained to the end, step {step}")),
            Event::Changed { key, before, now } => self.log.line(&format!("changed: {key} = {now}, before {before}")),
            Event::Guarded(guarded) => self.log.line(&format!("warning: {guarded}")),
            Event::Started(_) | Event::Step(_) | Event::Evaluated(_) | Event::Unknown => {}
        }
        self.rest.record(event)
    }

    fn note(&mut self, text: &str) {
        self.rest.note(text);
    }

    fn progress(&mut self, work: &str, share: f64) {
        self.rest.progress(work, share);
    }

    fn evaluating(&mut self, work: &str, standing: &trainer::evaluate::Standing) {
        self.activity.begin_next(Stage::Evaluation);
        self.rest.evaluating(work, standing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_follow_each_other_and_early_lines_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        for session in ["first", "second"] {
            let log = RankLog::new(3);
            log.line("joined");
            log.open(folder.path(), session);
            log.last_words("the end");
        }
        let text = std::fs::read_to_string(folder.path().join("logs/rank-0003.log")).unwrap();
        let words: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once("Z ")?.1)).collect();
        let session = |name| [name, "joined", "error: the end"];
        assert_eq!(words, [session("first"), session("second")].concat());
        let console = std::fs::read_to_string(folder.path().join("console.log")).unwrap();
        assert_eq!(console, "error: the end\n".repeat(2));
    }
}
