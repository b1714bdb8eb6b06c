//! Where the events of a run go: metrics.jsonl, and whoever listens.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    file: Arc<File>,
    /// The length that has reached the disk, of whole lines alone.
    synced: u64,
    /// The lines after that.
    lines: Vec<u8>,
    /// How many bytes of `lines` are written.
    written: usize,
    problem: Option<Error>,
}

/// The way of the lines written so far to the disk, on any thread.
pub struct Flush {
    path: PathBuf,
    file: Arc<File>,
    /// The length of the file with these lines.
    pub bytes: u64,
}

impl Flush {
    /// Returns when the disk has them.
    ///
    /// # Errors
    /// An I/O error: nobody knows which lines the disk has.
    pub fn wait(&self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("writing {}", self.path.display()))
    }
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
        let file = Arc::new(file);
        Ok(Self { path: path.to_path_buf(), file, synced: bytes, lines: vec![], written: 0, problem: None })
    }

    /// The length of the file once everything recorded has reached the disk.
    ///
    /// # Errors
    /// An I/O error; lines that are not written stay in memory.
    pub fn sync(&mut self) -> Result<u64> {
        let flush = self.begin_flush()?;
        let flushed = flush.wait();
        self.end_flush(flush.bytes, flushed.is_ok());
        flushed.map(|()| flush.bytes)
    }

    /// Writes everything recorded, and returns its way to the disk. Lines stay in memory until [`end_flush`](Self::end_flush).
    ///
    /// # Errors
    /// An I/O error.
    pub fn begin_flush(&mut self) -> Result<Flush> {
        self.write_waiting().with_context(|| format!("writing {}", self.path.display()))?;
        let bytes = self.synced + self.lines.len() as u64;
        Ok(Flush { path: self.path.clone(), file: Arc::clone(&self.file), bytes })
    }

    /// Hears whether the disk has the first `bytes` of the file. If a flush fails, nobody knows which lines the disk has, and
    /// all are written again.
    pub fn end_flush(&mut self, bytes: u64, flushed: bool) {
        if !flushed {
            self.written = 0;
            return;
        }
        let count = (bytes.saturating_sub(self.synced) as usize).min(self.lines.len());
        self.lines.drain(..count);
        self.written = self.written.saturating_sub(count);
        self.synced += count as u64;
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
        let writable = std::mem::replace(&mut lines.file, Arc::new(File::open(&path).unwrap()));
        lines.record(&event("two")).unwrap();
        assert!(lines.take_problem().is_some() && lines.take_problem().is_none());
        assert!(lines.sync().is_err());
        lines.file = writable;
        lines.record(&event("three")).unwrap();
        assert!(lines.take_problem().is_none());
        lines.sync().unwrap();
        // A file that takes lines and cannot be flushed may have lost them.
        let broken = Arc::new(File::options().write(true).open("/dev/null").unwrap());
        let writable = std::mem::replace(&mut lines.file, broken);
        lines.record(&event("four")).unwrap();
        assert!(lines.take_problem().is_none() && lines.sync().is_err());
        lines.file = writable;
        lines.sync().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events, ["one", "two", "three", "four"].map(event));
    }

    #[test]
    fn lines_recorded_during_a_flush_are_not_part_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut lines = JsonLines::open(&path, 0).unwrap();
        lines.record(&event("one")).unwrap();
        let flush = lines.begin_flush().unwrap();
        lines.record(&event("two")).unwrap();
        std::thread::scope(|scope| scope.spawn(|| flush.wait()).join()).unwrap().unwrap();
        lines.end_flush(flush.bytes, true);
        assert_eq!(flush.bytes + lines.lines.len() as u64, JsonLines::length(&path).unwrap());
        assert_eq!(lines.written, lines.lines.len());
        // What a failed flush may have lost is written again, whatever came meanwhile.
        let flush = lines.begin_flush().unwrap();
        lines.record(&event("three")).unwrap();
        lines.file.set_len(lines.synced).unwrap();
        lines.end_flush(flush.bytes, false);
        let length = lines.sync().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(length == text.len() as u64 && text.contains("two") && text.contains("three"), "{text:?}");
        assert!(lines.lines.is_empty());
    }
}
