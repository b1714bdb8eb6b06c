//! Files that survive a crash, and their digests.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

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

/// Reads a regular file. A pipe or a device is refused at once: reading one may never end.
///
/// # Errors
/// An I/O error; a path that is not a regular file.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    ensure_regular(path)?;
    fs::read(path)
}

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
    Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {found}, not a regular file")))
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
