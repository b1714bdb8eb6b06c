//! Where the events of a run go: metrics.jsonl, and whoever listens.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, ensure};

use crate::evaluate::Standing;
use crate::evaluate::finished::Heard;
use crate::run::events::Event;

/// Somewhere events go.
pub trait Sink {
    /// Takes note of an event.
    ///
    /// # Errors
    /// The event cannot be written.
    fn record(&mut self, event: &Event) -> Result<()>;

    /// Hears how far a long piece of work is, 0 to 1.
    fn progress(&mut self, _work: &str, _share: f64) {}

    /// Hears something that is worth a line.
    fn note(&mut self, _text: &str) {}

    /// Hears how far an evaluation is.
    fn evaluating(&mut self, _work: &str, _standing: &Standing) {}
}

/// Passes on to `sink` what an evaluation tells.
pub fn listener(sink: &mut dyn Sink) -> impl FnMut(Heard) -> Result<()> {
    |heard| match heard {
        Heard::Warning(message) => sink.record(&Event::Warned { message: message.to_string() }),
        Heard::Progress(work, standing) => {
            sink.evaluating(work, standing);
            Ok(())
        }
    }
}

/// Ranks other than the leader say nothing.
impl Sink for () {
    fn record(&mut self, _event: &Event) -> Result<()> {
        Ok(())
    }
}

/// metrics.jsonl: one JSON object a line. Lines stay in memory until the disk has them: a full disk may refuse them, and a
/// flush that fails may lose lines that were written before.
pub struct JsonLines {
    path: PathBuf,
    file: File,
    /// The length that has reached the disk, of whole lines alone.
    synced: u64,
    /// The lines after that.
    lines: Vec<u8>,
    /// How many bytes of `lines` are written.
    written: usize,
    problem: Option<Error>,
}

impl JsonLines {
    /// The length of `path`, 0 if it is not there.
    ///
    /// # Errors
    /// Any other I/O error.
    pub fn length(path: &Path) -> Result<u64> {
        match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            found => Ok(found.with_context(|| format!("reading {}", path.display()))?.len()),
        }
    }

    /// Opens `path` and cuts it to `bytes`, its length when the state to resume from was saved.
    ///
    /// # Errors
    /// An I/O error; a file shorter than `bytes`.
    pub fn open(path: &Path, bytes: u64) -> Result<Self> {
        let context = || format!("opening {}", path.display());
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.with_context(context)?;
        let length = file.metadata().with_context(context)?.len();
        ensure!(length >= bytes, "{} has {length} bytes, fewer than the {bytes} of the checkpoint", path.display());
        file.set_len(bytes).with_context(context)?;
        Ok(Self { path: path.to_path_buf(), file, synced: bytes, lines: vec![], written: 0, problem: None })
    }

    /// The length of the file once everything recorded has reached the disk.
    ///
    /// # Errors
    /// An I/O error; lines that are not written stay in memory.
    pub fn sync(&mut self) -> Result<u64> {
        let synced = self.write_waiting().and_then(|()| {
            // After a flush that fails, nobody knows which lines the disk has: all are written again.
            self.file.sync_all().inspect_err(|_| self.written = 0)
        });
        synced.with_context(|| format!("writing {}", self.path.display()))?;
        self.synced += self.lines.len() as u64;
        self.lines.clear();
        self.written = 0;
        Ok(self.synced)
    }

    /// What kept lines from being written since the last call.
    pub fn take_problem(&mut self) -> Option<Error> {
        self.problem.take()
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        let length = self.synced + self.written as u64;
        let written = self.file.write_all_at(&self.lines[self.written..], length);
        if written.is_err() {
            // The file must not end with half of a line.
            let _ = self.file.set_len(length);
            return written;
        }
        self.written = self.lines.len();
        Ok(())
    }
}

impl Sink for JsonLines {
    fn record(&mut self, event: &Event) -> Result<()> {
        serde_json::to_writer(&mut self.lines, event)?;
        self.lines.push(b'\n');
        if let Err(error) = self.write_waiting() {
            self.problem = Some(Error::new(error).context(format!("writing {}", self.path.display())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        Event::Warned { message: message.into() }
    }

    #[test]
    fn lines_are_appended_after_the_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(JsonLines::length(&path).unwrap(), 0);
        let mut lines = JsonLines::open(&path, 0).unwrap();
        lines.record(&event("one")).unwrap();
        let length = lines.sync().unwrap();
        lines.record(&event("lost")).unwrap();
        let mut lines = JsonLines::open(&path, length).unwrap();
        lines.record(&event("two")).unwrap();
        assert_eq!(lines.sync().unwrap(), JsonLines::length(&path).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("one") && text.contains("two") && !text.contains("lost"), "{text}");
        assert!(JsonLines::open(&path, 1000).is_err());
    }

    #[test]
    fn lines_that_cannot_be_written_wait_and_are_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut lines = JsonLines::open(&path, 0).unwrap();
        lines.record(&event("one")).unwrap();
        // A file that is open for reading alone takes no lines.
        let writable = std::mem::replace(&mut lines.file, File::open(&path).unwrap());
        lines.record(&event("two")).unwrap();
        assert!(lines.take_problem().is_some() && lines.take_problem().is_none());
        assert!(lines.sync().is_err());
        lines.file = writable;
        lines.record(&event("three")).unwrap();
        assert!(lines.take_problem().is_none());
        lines.sync().unwrap();
        // A file that takes lines and cannot be flushed may have lost them.
        let writable = std::mem::replace(&mut lines.file, File::options().write(true).open("/dev/null").unwrap());
        lines.record(&event("four")).unwrap();
        assert!(lines.take_problem().is_none() && lines.sync().is_err());
        lines.file = writable;
        lines.sync().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events, ["one", "two", "three", "four"].map(event));
    }
}
