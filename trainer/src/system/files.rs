//! Files that survive a crash, and their digests.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
pub use datasets::{ensure_regular, in_words, read_text};
use sha2::{Digest, Sha256};

use super::memory::total_memory;

/// Replaces `path` by `bytes`. A crash leaves the old or the new contents, never a mixture.
///
/// # Errors
/// Any error of the file system, with the path.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = File::create(&partial).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        // The rename itself must reach the disk too.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    });
    written.inspect_err(|_| drop(fs::remove_file(&partial))).with_context(|| format!("writing {}", path.display()))
}

/// Reads a regular file that fits in this machine's memory. Reading a pipe or a device may never end, and a file with holes
/// may pretend any size: they are refused at once.
///
/// # Errors
/// An I/O error; a path that is not a regular file; a file that is too large.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    datasets::read_regular(path, total_memory().unwrap_or(u64::MAX))
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// Any error of the file system.
pub fn file_sha256(path: &Path) -> Result<String> {
    let bytes = read_regular(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(sha256(&bytes))
}

/// SHA-256 of these bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_and_a_device_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "text").unwrap();
        assert_eq!(read_regular(&file).unwrap(), b"text");
        assert!(read_regular(folder.path()).unwrap_err().to_string().contains("a folder"));
        assert!(read_regular(Path::new("/dev/zero")).unwrap_err().to_string().contains("a device"));
    }
}
