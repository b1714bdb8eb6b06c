//! Regular files alone: opening a pipe waits for a writer, a device never ends, and a file with holes may pretend any size.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

/// The most bytes of a text that people write: a configuration, a table, a list.
const MOST_TEXT: u64 = 64 << 20;

/// Refuses a path that is not a regular file.
///
/// # Errors
/// An I/O error, and what else the path is.
pub fn ensure_regular(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let found = if kind.is_dir() { "a folder" } else { "a pipe or a device" };
    Err(io::Error::new(ErrorKind::InvalidInput, format!("{found}, not a file")))
}

/// What is wrong with a file, for a sentence such as "the file is ...".
pub fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    // This program's own words, or the system's without their number.
    let Some(number) = error.raw_os_error() else { return text };
    let text = text.trim_end_matches(&format!(" (os error {number})"));
    match error.kind() {
        ErrorKind::NotFound => format!("missing ({text})"),
        ErrorKind::IsADirectory => "a folder, not a file".into(),
        _ => format!("unreadable ({text})"),
    }
}

/// Opens a regular file for reading.
///
/// # Errors
/// An I/O error; a path that is not a regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    ensure_regular(path)?;
    File::open(path)
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// An I/O error; a path that is not a regular file; a larger file, before any of it is read.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let too_large =
        |size: u64| io::Error::new(ErrorKind::FileTooLarge, format!("too large ({size} bytes, more than {most})"));
    let size = file.metadata()?.len();
    if size > most {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(size).map_err(io::Error::other)?)?;
    // It may grow meanwhile, and files of the system say that they are empty.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Reads a text that people write, of 64 MiB at most.
///
/// # Errors
/// As [`read_regular`]; a text that is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_regular(path, MOST_TEXT)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_devices_and_large_files_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        fs::write(&file, "text").expect("writing");
        assert_eq!(
            (read_regular(&file, 4).expect("a file"), read_text(&file).expect("a text")),
            (b"text".into(), "text".into())
        );
        let refused = |path: &Path, most| read_regular(path, most).expect_err("no such file").to_string();
        assert!(refused(&file, 3).contains("4 bytes, more than 3"));
        assert!(refused(folder.path(), 9).contains("a folder"));
        assert!(refused(Path::new("/dev/zero"), 9).contains("a device"));
        File::create(&file).and_then(|file| file.set_len(1 << 40)).expect("a file of holes");
        assert!(refused(&file, 1 << 30).contains("1099511627776 bytes"));
        assert!(read_text(&file).expect_err("no text").to_string().contains("more than"));
        assert!(open_regular(Path::new("/dev/null")).is_err());

        let words = |path: &Path| in_words(&read_text(path).expect_err("no text"));
        assert_eq!(words(&folder.path().join("nowhere")), "missing (No such file or directory)");
        assert_eq!(words(folder.path()), "a folder, not a file");
        std::os::unix::fs::symlink("circle", folder.path().join("circle")).expect("a link");
        assert!(words(&folder.path().join("circle")).starts_with("unreadable (Too many levels"));
    }
}
