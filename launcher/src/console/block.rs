//! Lines at the bottom of the terminal that the next ones replace. It needs no mode of the terminal: whatever ends the process,
//! there is nothing to restore.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use terminal_size::{Height, Width, terminal_size_of};

/// The widths of the lines that are shown now. The cursor is behind the last one.
static SHOWN: Mutex<Vec<usize>> = Mutex::new(vec![]);

/// Whether the user asked for plain lines.
static PLAIN: AtomicBool = AtomicBool::new(false);

/// From now on, lines stay.
pub(crate) fn set_plain(plain: bool) {
    PLAIN.store(plain, Ordering::Relaxed);
}

/// Whether lines can be replaced: on a terminal that knows how, unless the user asked for plain ones.
pub(super) fn is_live() -> bool {
    let able = std::env::var_os("TERM").is_none_or(|name| name != "dumb");
    stderr().is_terminal() && able && !PLAIN.load(Ordering::Relaxed)
}

/// Columns and rows of the terminal.
pub(super) fn size() -> (usize, usize) {
    terminal_size_of(stderr()).map_or((80, 24), |(Width(columns), Height(rows))| (columns.into(), rows.into()))
}

/// Shows `lines` in the place of those that are there, cut to the terminal.
pub(super) fn show(lines: &[String]) {
    let Ok(mut shown) = SHOWN.try_lock() else { return };
    let (columns, rows) = size();
    let (text, widths) = replaced(&shown, lines, columns, rows);
    *shown = widths;
    // A closed stderr must not stop a run.
    let _ = stderr().write_all(text.as_bytes());
    let _ = stderr().flush();
}

/// What takes the lines off the terminal that are there, for a line that stays. A line that comes from a panic within `show` is
/// printed behind them.
pub(super) fn taken_off() -> String {
    SHOWN.try_lock().map_or(String::new(), |mut shown| off(&std::mem::take(&mut *shown), size().0))
}

/// The text that replaces lines of these `widths` by `lines` on a terminal of this size, and the new widths.
fn replaced(widths: &[usize], lines: &[String], columns: usize, rows: usize) -> (String, Vec<usize>) {
    // The last column stays free, for terminals differ in when they wrap.
    let cut = |line: &String| line.chars().take(columns.saturating_sub(1).max(1)).collect::<String>();
    let lines: Vec<String> = lines.iter().take(rows.saturating_sub(1).max(1)).map(cut).collect();
    let widths_now = lines.iter().map(|line| line.chars().count()).collect();
    (off(widths, columns) + &lines.join("\r\n"), widths_now)
}

/// The text that takes lines of these widths off a terminal of so many columns, which wraps what has become too long.
fn off(widths: &[usize], columns: usize) -> String {
    let rows: usize = widths.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
    match rows {
        0 => String::new(),
        1 => "\r\x1b[J".into(),
        more => format!("\r\x1b[{}A\x1b[J", more - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_the_terminal_and_taken_off_again() {
        let lines: Vec<String> = ["12345678901", "short", "third"].map(String::from).into();
        let (text, widths) = replaced(&[], &lines, 10, 3);
        assert_eq!((text.as_str(), &widths[..]), ("123456789\r\nshort", &[9, 5][..]));
        assert_eq!(replaced(&widths, &lines[1..2], 10, 3).0, "\r\x1b[1A\x1b[Jshort");
        // On a terminal that became narrower, the first line takes three rows and the second two.
        assert_eq!(off(&widths, 4), "\r\x1b[4A\x1b[J");
        assert_eq!((off(&[5], 10), off(&[], 10)), ("\r\x1b[J".into(), String::new()));
    }
}
