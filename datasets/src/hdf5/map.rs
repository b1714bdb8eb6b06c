//! The one file mapping of this crate.

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

/// Maps `size` bytes of `file` from `offset`, a range that the caller has found within the file.
#[allow(unsafe_code)]
pub(super) fn map(file: &File, offset: u64, size: usize) -> io::Result<Mmap> {
    // SAFETY: the range lies within the file, whose length was taken from this very handle, and the mapping is read
    // only. Data set files are written under another name, renamed and never changed again; whoever shortens one
    // while it is in use ends this process with a bus error.
    unsafe { MmapOptions::new().offset(offset).len(size).map(file) }
}
