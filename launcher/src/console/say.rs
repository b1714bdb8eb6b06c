//! Single lines to the user, and to the console.log of a run.

use std::fs::File;
use std::io::{ErrorKind, Result, Write, stdout};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::block::taken_off;

/// Whether only results, warnings and errors are shown.
static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on, progress is shown or not.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether progress is not shown.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// A line of progress to the user, unless the program is told to be quiet.
pub(crate) fn tell(text: &str) {
    if !is_quiet() {
        say(text);
    }
}

/// A line to the user.
pub(crate) fn say(text: &str) {
    // A closed stderr must not stop a run.
    let _ = writeln!(std::io::stderr(), "{}{text}", taken_off());
}

/// Standard output. A reader that is gone, as `head` is after its lines, is no error: it wants no more.
pub(crate) struct Out;

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        // Results take the place of what showed the way to them.
        let _ = write!(std::io::stderr(), "{}", taken_off());
        wanted(stdout().write(bytes), bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        wanted(stdout().flush(), ())
    }
}

fn wanted<T>(written: Result<T>, all: T) -> Result<T> {
    written.or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(all) } else { Err(error) })
}

/// An error to the user.
pub(crate) fn error(error: &anyhow::Error) {
    error_text(&format!("{error:#}"));
}

/// The text of an error for the user.
pub(crate) fn error_text(text: &str) {
    say(&format!("iad-launch: error: {text}"));
}

/// Adds a line to a run's console.log, if that is possible.
pub(crate) fn append_log(folder: &Path, text: &str) {
    if let Ok(mut log) = File::options().append(true).create(true).open(folder.join("console.log")) {
        let _ = writeln!(log, "{text}");
    }
}
