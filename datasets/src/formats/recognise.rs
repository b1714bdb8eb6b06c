//! The kind of a file by its first bytes, for error messages about unexpected files.

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileKind {
    /// In words, with an article.
    pub name: &'static str,
    /// The next step, for placeholders of the real file.
    pub hint: Option<&'static str>,
}

/// The kind of a file that begins with `start`, of which the first 512 bytes count. None where nothing known fits.
pub fn kind_of_file(start: &[u8]) -> Option<FileKind> {
    let plain = |name| Some(FileKind { name, hint: None });
    if start.is_empty() {
        return plain("an empty file");
    }
    if start.starts_with(b"version https://git-lfs.github.com/spec/") {
        let hint = "run `git lfs pull` in that repository: it puts the real file in its place";
        return Some(FileKind { name: "a Git LFS pointer, not the file that it stands for", hint: Some(hint) });
    }
    let start = &start[..start.len().min(512)];
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start().to_ascii_lowercase();
    let pages = [(&b"<!doctype html"[..], HTML), (b"<html", HTML), (b"<head", HTML), (b"<?xml", "an XML page")];
    if let Some((_, name)) = pages.into_iter().find(|(tag, _)| text.starts_with(tag)) {
        let hint = "the address answered with a page instead of the file: download it again, in a browser if it asks for a \
                    confirmation or a login";
        return Some(FileKind { name, hint: Some(hint) });
    }
    if start.get(257..262) == Some(b"ustar") {
        return plain(TAR);
    }
    let known: [(&[u8], &str); 15] = [
        (b"PK\x03\x04", ZIP),
        (b"PK\x05\x06", ZIP),
        (b"\x1f\x8b", GZIP),
        (b"BZh", "a file compressed with bzip2"),
        (b"\xfd7zXZ\0", "a file compressed with xz"),
        (b"\x28\xb5\x2f\xfd", "a file compressed with zstd"),
        (b"Rar!", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x93NUMPY", "a single array of NumPy (.npy)"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"\xff\xd8\xff", "a JPEG picture"),
        (b"%PDF", "a PDF document"),
        (b"PAR1", "a Parquet file"),
        (b"\x80", "a Python pickle"),
    ];
    known.into_iter().find(|(magic, _)| start.starts_with(magic)).and_then(|(_, name)| plain(name))
}

const HTML: &str = "an HTML page";
/// The name of a zip archive, also of one without members.
pub const ZIP: &str = "a zip archive";
/// The name of a file compressed with gzip.
pub const GZIP: &str = "a file compressed with gzip";
/// The name of a tar archive that is not compressed.
pub const TAR: &str = "a tar archive that is not compressed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let name = |start: &[u8]| kind_of_file(start).map(|kind| kind.name);
        assert_eq!(name(b""), Some("an empty file"));
        assert_eq!(name(b"\n\n  <!DOCTYPE html><html>"), Some("an HTML page"));
        assert_eq!(name(b"PK\x03\x04...."), Some(ZIP));
        assert_eq!(name(&[&[b'a'; 257][..], b"ustar\0"].concat()), Some(TAR));
        assert_eq!(name(b"just text"), None);
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
        assert!(kind_of_file(pointer).and_then(|kind| kind.hint).is_some_and(|hint| hint.contains("git lfs pull")));
    }
}
